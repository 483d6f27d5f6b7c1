import { useState } from "preact/hooks";
import type { Match, Verdict } from "../../endpoint/contract";
import { rejectMatch } from "../../endpoint/feedback";
import { searchItem } from "../../search";
import { answer, can, canEdit, query, subject } from "../../state";
import { formatClock, formatPercent, hostOf, safeLink } from "../../words/format";
import { kinship, likelihood } from "../../words/sureness";
import { Bar } from "../elements/Bar";
import { Icon } from "../elements/icons";
import { Thumb } from "../elements/Thumb";
import { Credit, Facts, Places } from "./ItemFacts";
import { Why } from "./Why";

/** `similar` goes without saying. */
const VERDICTS: Partial<Record<Verdict, { text: string; title: string }>> = {
  exact: { text: "Same picture", title: "The same picture, perhaps resized or saved anew" },
  edited: { text: "Edited copy", title: "The same picture, cropped, recoloured or otherwise changed" },
};

/** One result. `credited`: whose picture it is stands elsewhere already. */
export function Card({ match, credited }: { match: Match; credited: boolean }) {
  const { item, verdict } = match;
  const title = item.title || "Untitled item";
  const page = safeLink(item.page_url);
  const seconds = item.extra?.["seconds"];
  const at = seconds ? formatClock(Number(seconds)) : null;
  const picture = <Thumb src={item.image_url} alt={title} />;
  const said = VERDICTS[verdict];
  return (
    <article class="card" aria-label={title} data-verdict={verdict}>
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
          <span class={`verdict verdict-${verdict}`} title={said.title}>
            {said.text}
          </span>
        )}
        {at && <span class="moment">{at}</span>}
      </div>
      {/* biome-ignore-end lint/a11y/useAnchorContent: the title below is the same link, for everybody */}
      <div class="card-text">
        <h3 title={title} dir="auto">
          {page ? (
            <a
              href={page}
              target="_blank"
              rel="noopener noreferrer"
              title={`${title}\nOpen on ${hostOf(page)}${at ? ` at ${at}` : ""}`}
            >
              {title}
              <Icon name="out" size={16} />
            </a>
          ) : (
            title
          )}
        </h3>
        <Facts item={item} />
        {!credited && <Credit item={item} />}
        <Sureness match={match} />
        <Places match={match} />
      </div>
      <Actions match={match} title={title} />
    </article>
  );
}

/** How near it is, and in words how sure that makes of it, where words would not mislead. */
function Sureness({ match: { confidence, similarity } }: { match: Match }) {
  const current = answer.value;
  if (!current) return null;
  const ofItem = query.value?.kind === "item";
  // Where the answer as a whole is unsure, its band says so once for all.
  const numbered = !ofItem && !current.no_confident_match && !current.query.blank;
  const words = ofItem ? kinship(confidence, current) : numbered ? likelihood(confidence) : "";
  return (
    <div class="sureness">
      {words && (
        <p title={numbered ? "Probability that this is what you look for" : undefined}>
          <span>{words}</span>
          {numbered && <span>{formatPercent(confidence)}</span>}
        </p>
      )}
      <Bar value={numbered ? confidence : Math.max(similarity, 0)} />
      <p class="muted" title="Likeness to your picture; 1 is the same">
        <span>Similarity</span> <span>{similarity.toFixed(3)}</span>
      </p>
    </div>
  );
}

function Actions({ match, title }: { match: Match; title: string }) {
  const [asking, setAsking] = useState(false);
  const comparable = can("explain") && (canEdit.value || query.value?.kind === "item");
  const reject = (event: { currentTarget: HTMLElement }) => {
    // The card goes and takes the focus with it, so that moves on first.
    const card = event.currentTarget.closest("li");
    const next = card?.nextElementSibling ?? card?.previousElementSibling;
    next?.querySelector<HTMLElement>(".reject")?.focus({ preventScroll: true });
    rejectMatch(match.item);
  };
  return (
    <div class="card-actions">
      <button
        type="button"
        class="text-button"
        aria-label={`More like this: ${title}`}
        onClick={() => void searchItem(match.item)}
      >
        <Icon name="similar" size={18} />
        <span>More like this</span>
      </button>
      <span class="tools-space" />
      {comparable && (
        <button
          type="button"
          class="icon-button"
          aria-label={`Why ${title} matched`}
          title="Why it matched"
          onClick={() => setAsking(true)}
        >
          <Icon name="why" size={18} />
        </button>
      )}
      {can("feedback") && subject.value && (
        <button
          type="button"
          class="icon-button reject"
          aria-label={`${title} is not a match`}
          title="Not a match"
          onClick={reject}
        >
          <Icon name="reject" size={18} />
        </button>
      )}
      {asking && <Why match={match} onClose={() => setAsking(false)} />}
    </div>
  );
}
