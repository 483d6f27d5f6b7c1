import { useState } from "preact/hooks";
import type { Match, Verdict } from "../contract";
import { rejectMatch } from "../feedback";
import { formatCountry, formatPercent, formatPrice, hostOf, likelihood, safeLink, sentenceCase } from "../format";
import { searchItem } from "../search";
import { can, canEdit, query } from "../state";
import { Bar } from "./Bar";
import { Icon } from "./icons";
import { Thumb } from "./Thumb";
import { Why } from "./Why";

const VERDICTS: Record<Verdict, { text: string; title: string }> = {
  exact: { text: "Same picture", title: "The same picture, perhaps resized or saved anew" },
  edited: { text: "Edited copy", title: "The same picture, cropped, recoloured or otherwise changed" },
  similar: { text: "Similar", title: "Another picture that looks alike" },
};

/** One result. */
export function Card({ match, doubtful }: { match: Match; doubtful: boolean }) {
  const [asking, setAsking] = useState(false);
  const { item, confidence, similarity, verdict } = match;
  const title = item.title || "Untitled item";
  const page = safeLink(item.page_url);
  const picture = <Thumb src={item.image_url} alt={title} />;
  const comparable = can("explain") && (canEdit.value || query.value?.kind === "item");
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
        <span class={`verdict verdict-${verdict}`} title={VERDICTS[verdict].title}>
          {VERDICTS[verdict].text}
        </span>
      </div>
      {/* biome-ignore-end lint/a11y/useAnchorContent: the title below is the same link, for everybody */}
      <div class="card-text">
        <h3>
          {page ? (
            <a href={page} target="_blank" rel="noopener noreferrer" title={`Open on ${hostOf(page)}`}>
              {title}
              <Icon name="out" size={16} />
            </a>
          ) : (
            title
          )}
        </h3>
        <p class="card-facts">
          {typeof item.price === "number" && <strong>{formatPrice(item.price, item.currency)}</strong>}
          {item.collection && <span>{sentenceCase(item.collection)}</span>}
          {item.country && <span>{formatCountry(item.country)}</span>}
        </p>
        <p class="sureness">
          <Bar value={confidence} />
          <span>
            {doubtful ? "Unlikely" : likelihood(confidence)} <span class="muted">{formatPercent(confidence)}</span>
          </span>
          <span class="muted" title="Similarity to your picture; 1 is the same">
            <span class="similarity-word">Similarity </span>
            {similarity.toFixed(3)}
          </span>
        </p>
        <Places match={match} />
      </div>
      <div class="card-actions">
        <button
          type="button"
          class="text-button"
          onClick={() => void searchItem(item)}
          aria-label={`More like ${title}`}
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
        {can("feedback") && (
          <button
            type="button"
            class="icon-button"
            aria-label={`${title} is not a match`}
            title="Not a match"
            onClick={() => rejectMatch(item)}
          >
            <Icon name="reject" size={18} />
          </button>
        )}
      </div>
      {asking && <Why match={match} onClose={() => setAsking(false)} />}
    </article>
  );
}

/** Where else the same picture stands. */
function Places({ match }: { match: Match }) {
  const places = match.places ?? [];
  if (places.length < 2) return null;
  return (
    <details class="places">
      <summary>
        <span>{places.length} places</span>
        <Icon name="chevron" size={16} />
      </summary>
      <ul>
        {places.map((place) => {
          const page = safeLink(place.page_url);
          const name = place.title || (page ? hostOf(page) : "Untitled item");
          return (
            <li key={place.item}>
              {page ? (
                <a href={page} target="_blank" rel="noopener noreferrer">
                  {name}
                </a>
              ) : (
                <span>{name}</span>
              )}
              {typeof place.price === "number" && <span>{formatPrice(place.price, place.currency)}</span>}
            </li>
          );
        })}
      </ul>
    </details>
  );
}
