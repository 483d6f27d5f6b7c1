import { UNLIKE } from "../../address/link";
import { partsOf } from "../../filters";
import { changeOptions, dropPicture } from "../../search";
import { options, query, seen } from "../../state";
import { partName } from "../../words/filters";
import { t } from "../../words/messages";
import { Icon } from "../elements/icons";
import { Thumb } from "../elements/Thumb";
import { Order } from "../query/Order";

interface Chip {
  key: string;
  name: string;
  /** A picture of what it stands for. */
  picture?: string | undefined;
  isAgainst?: boolean;
  drop: () => Promise<void>;
}

/** What is asked for, each part to take away again, and the order of the results. */
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
      <Order />
    </div>
  );
}

function chipsNow(): Chip[] {
  const { text, examples, filters } = options.value;
  const current = query.value;
  const words: Chip[] = text
    ? [{ key: "text", name: t("chips.words", { words: text }), drop: () => changeOptions({ text: "" }) }]
    : [];
  const items = examples.map(({ item, weight }): Chip => {
    const known = seen.value.get(item);
    const name = t(weight < 0 ? "chips.unlike" : "chips.like", { name: known?.title || t("card.untitled") });
    const others = examples.filter((one) => one.item !== item);
    const drop = () => changeOptions({ examples: others });
    return { key: item, name, picture: known?.image_url, isAgainst: weight <= UNLIKE, drop };
  });
  const parts = partsOf(filters).map(
    (part): Chip => ({
      key: partName(part),
      name: partName(part),
      drop: () => changeOptions({ filters: part.without }),
    }),
  );
  const joined = [...words, ...items];
  // A picture alone has its place beside the results; with words or examples one may go on without it.
  const picture: Chip[] =
    current && current.kind !== "words" && joined.length > 0
      ? [{ key: "picture", name: t("page.query"), picture: current.picture.src ?? undefined, drop: dropPicture }]
      : [];
  return [...picture, ...joined, ...parts];
}
