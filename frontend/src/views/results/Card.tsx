import { useState } from "preact/hooks";
import { idOf, LIKE, UNLIKE } from "../../address/link";
import type { Highlight, Match, Verdict } from "../../endpoint/contract";
import { rejectMatch } from "../../endpoint/feedback";
import { toggleExample } from "../../search/examples";
import { searchItem } from "../../search/search";
import { answer, askedAs, can, canEdit, options, query, subject } from "../../state";
import { fieldName } from "../../words/filters";
import { formatClock, formatDecimal, hostOf, safeLink } from "../../words/format";
import { type Key, t } from "../../words/messages";
import { surenessOfMatch } from "../../words/sureness";
import { Bar } from "../elements/Bar";
import { Icon } from "../elements/icons";
import { Menu, MenuButton } from "../elements/Menu";
import { Thumb } from "../elements/Thumb";
import { Compare } from "./Compare";
import { Credit, Facts, Others } from "./ItemFacts";
import { Why } from "./Why";

/** `similar` goes without saying. */
const VERDICTS: Partial<Record<Verdict, { text: Key; title: Key }>> = {
  exact: { text: "card.exact", title: "card.exact.title" },
  edited: { text: "card.edited", title: "card.edited.title" },
};

/** One result. `credited`: the picture's credit is shown elsewhere already. */
export function Card({ match, credited }: { match: Match; credited: boolean }) {
  const { item, verdict, highlights = [], places = [], product = [] } = match;
  const title = item.title || t("card.untitled");
  const page = safeLink(item.page_url);
  const seconds = item.extra?.["seconds"];
  const at = (seconds && formatClock(Number(seconds))) || null;
  const picture = <Thumb src={item.image_url} alt={title} />;
  const said = verdict && VERDICTS[verdict];
  const inTitle = highlights.find(({ field }) => field === "title");
  const shown = inTitle && inTitle.text === item.title ? <Marked {...inTitle} /> : title;
  const elsewhere = highlights.find(({ field }) => field !== "title");
  return (
    <article class="card" aria-label={title} data-verdict={verdict ?? "none"}>
      {/* biome-ignore-start lint/a11y/useAnchorContent: the title below is the same link, for everybody */}
      <div class="card-picture">
        {page ? (
          <a href={page} target="_blank" rel="noopener noreferrer" tabIndex={-1} aria-hidden="true">
            {picture}
          </a>
        ) : (
          picture
        )}
        {said && (
          <span class={`verdict verdict-${verdict}`} title={t(said.title)}>
            {t(said.text)}
          </span>
        )}
        {at && <span class="moment">{at}</span>}
      </div>
      {/* biome-ignore-end lint/a11y/useAnchorContent: the title below is the same link, for everybody */}
      <div class="card-text">
        <h3 title={title} dir="auto">
          {page ? (
            <a href={page} target="_blank" rel="noopener noreferrer" title={`${title}\n${opensOn(page, at)}`}>
              {shown}
              <Icon name="out" size={16} />
            </a>
          ) : (
            shown
          )}
        </h3>
        <Facts item={item} />
        {elsewhere && <Found highlight={elsewhere} />}
        {!credited && <Credit item={item} />}
        <Sureness match={match} />
        {places.length > 1 && <Others title={t("card.places", { count: places.length })} places={places} />}
        {product.length > 0 && (
          <Others title={t("card.product", { count: product.length })} places={product} pictures />
        )}
      </div>
      <Actions match={match} title={title} />
    </article>
  );
}

const opensOn = (page: string, time: string | null): string =>
  time ? t("card.open.at", { host: hostOf(page), time }) : t("card.open", { host: hostOf(page) });

/** The words that were searched for, where they occur in an item outside its title. */
function Found({ highlight }: { highlight: Highlight }) {
  const { field } = highlight;
  return (
    <p class="found" dir="auto" title={FIELDS[field] ? t(FIELDS[field]) : fieldName(field)}>
      <Marked {...highlight} />
    </p>
  );
}

const FIELDS: Readonly<Record<string, Key>> = {
  description: "field.description",
  collection: "filters.collection",
  brand: "field.brand",
  labels: "filters.label",
};

/** A text with the matching words. Its spans count characters, for which JavaScript's strings may need two units each. */
function Marked({ text, spans }: Highlight) {
  const signs = [...text];
  const between = (from: number, to?: number) => signs.slice(from, to).join("");
  return (
    <>
      {spans.map(([start, end], index) => (
        <>
          {between(spans[index - 1]?.[1] ?? 0, start)}
          <mark>{between(start, end)}</mark>
        </>
      ))}
      {between(spans.at(-1)?.[1] ?? 0)}
    </>
  );
}

/** How near it is, and, unless words would mislead, how sure that makes it, in words. */
function Sureness({ match: { confidence, similarity } }: { match: Match }) {
  const current = answer.value;
  if (!current || typeof similarity !== "number") return null;
  const [words, percent] = surenessOfMatch(confidence, current, askedAs.value);
  return (
    <div class="sureness">
      {words && (
        <p title={percent ? t("card.probability") : undefined}>
          <span>{words}</span>
          {percent && <span>{percent}</span>}
        </p>
      )}
      <Bar value={percent ? confidence : Math.max(similarity, 0)} />
      <p class="muted" title={t("card.similarity.title")}>
        <span>{t("card.similarity")}</span> <span>{formatDecimal(similarity, 3)}</span>
      </p>
    </div>
  );
}

function Actions({ match, title }: { match: Match; title: string }) {
  const [dialog, setDialog] = useState<"why" | "compare" | null>(null);
  const { item } = match;
  const close = () => setDialog(null);
  const hasPicture = canEdit.value || query.value?.kind === "item";
  const reject = (event: { currentTarget: HTMLElement }) => {
    // The card disappears, and the focus with it, so the focus moves on first.
    const card = event.currentTarget.closest("li");
    const next = card?.nextElementSibling ?? card?.previousElementSibling;
    next?.querySelector<HTMLElement>(".reject")?.focus({ preventScroll: true });
    rejectMatch(item);
  };
  const example = (weight: number) => ({
    pressed: options.value.examples.some((one) => idOf(one) === item.id && one.weight === weight),
    onClick: () => void toggleExample(item, weight),
  });
  return (
    <div class="card-actions">
      <button
        type="button"
        class="text-button"
        aria-label={t("card.more.name", { name: title })}
        onClick={() => void searchItem(item)}
      >
        <Icon name="similar" size={18} />
        <span>{t("card.more")}</span>
      </button>
      <span class="tools-space" />
      <Menu label={t("card.menu", { name: title })} title={t("card.menu.title")}>
        <MenuButton icon="plus" text={t("card.like")} {...example(LIKE)} />
        <MenuButton icon="minus" text={t("card.unlike")} {...example(UNLIKE)} />
        {hasPicture && can("explain") && (
          <MenuButton icon="compare" text={t("card.compare")} onClick={() => setDialog("compare")} />
        )}
        {hasPicture && can("explain") && (
          <MenuButton icon="why" text={t("card.why")} onClick={() => setDialog("why")} />
        )}
      </Menu>
      {can("feedback") && subject.value && (
        <button
          type="button"
          class="icon-button reject"
          aria-label={t("card.reject.name", { name: title })}
          title={t("card.reject")}
          onClick={reject}
        >
          <Icon name="reject" size={18} />
        </button>
      )}
      {dialog === "why" && <Why match={match} onClose={close} />}
      {dialog === "compare" && <Compare match={match} onClose={close} />}
    </div>
  );
}
