import { idOf, UNLIKE } from "../../address/link";
import { partsOf } from "../../filters";
import { changeOptions, dropPicture } from "../../search/search";
import { added, options, query, seen } from "../../state";
import { partName } from "../../words/filters";
import { formatShare } from "../../words/format";
import { t } from "../../words/messages";
import { Icon } from "../elements/icons";
import { Thumb } from "../elements/Thumb";
import { AddPicture } from "../query/AddPicture";
import { Order } from "../query/Order";

interface Chip {
  key: string;
  name: string;
  /** A picture of what it represents. */
  picture?: string | undefined;
  isAgainst?: boolean;
  drop: () => Promise<void>;
}

/** The parts of the question, each of which can be removed, and the order of the results. */
export function Asked() {
  const chips = chipsNow();
  return (
    <div class="asked">
      {chips.length > 0 && (
        <ul class="chips" aria-label={t("chips.title")}>
          {chips.map(({ key, name, picture, isAgainst, drop }) => (
            <li key={key}>
              <button
                type="button"
                class={isAgainst ? "chip chip-against" : "chip"}
                aria-label={t("chips.remove", { name })}
                onClick={() => void drop()}
              >
                {picture && <Thumb src={picture} alt="" />}
                <span dir="auto">{name}</span>
                <Icon name="close" size={14} />
              </button>
            </li>
          ))}
        </ul>
      )}
      <AddPicture />
      <Order />
    </div>
  );
}

function chipsNow(): Chip[] {
  const { text, examples, filters, sort, variety } = options.value;
  const current = query.value;
  const words: Chip[] = text
    ? [{ key: "text", name: t("chips.words", { words: text }), drop: () => changeOptions({ text: "" }) }]
    : [];
  const items = examples.map((example): Chip => {
    const key = idOf(example);
    const shown = "item" in example ? itemShown(example.item) : pictureShown(example.vector);
    const name = t(example.weight < 0 ? "chips.unlike" : "chips.like", { name: shown.name });
    const drop = () => changeOptions({ examples: examples.filter((one) => idOf(one) !== key) });
    return { key, name, picture: shown.src ?? undefined, isAgainst: example.weight <= UNLIKE, drop };
  });
  const parts = partsOf(filters).map(
    (part): Chip => ({
      key: partName(part),
      name: partName(part),
      drop: () => changeOptions({ filters: part.without }),
    }),
  );
  const joined = [...words, ...items];
  // A picture alone is shown next to the results; with words or examples the search can continue without it.
  const picture: Chip[] =
    current && current.kind !== "words" && joined.length > 0
      ? [{ key: "picture", name: t("page.query"), picture: current.picture.src ?? undefined, drop: dropPicture }]
      : [];
  const varied: Chip[] =
    variety > 0 && sort === "likeness"
      ? [
          {
            key: "variety",
            name: t("chips.variety", { share: formatShare(variety) }),
            drop: () => changeOptions({ variety: 0 }),
          },
        ]
      : [];
  return [...picture, ...joined, ...parts, ...varied];
}

function itemShown(id: string) {
  const item = seen.value.get(id);
  return { name: item?.title || t("card.untitled"), src: item?.image_url };
}

const pictureShown = (vector: string) => added.value.get(vector)?.picture ?? { name: t("picture.linked"), src: null };
