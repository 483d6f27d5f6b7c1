import { useEffect, useRef } from "preact/hooks";
import { countFilters } from "../../address/link";
import type { SearchAnswer } from "../../endpoint/contract";
import { isRejected } from "../../endpoint/feedback";
import { changeOptions, retry } from "../../search";
import {
  answer,
  canEdit,
  isBusy,
  isEdited,
  linkNotice,
  options,
  phase,
  problem,
  query,
  revealed,
  toast,
} from "../../state";
import { formatCount, formatMilliseconds, formatPercent, likelihood } from "../../words/format";
import { Icon } from "../elements/icons";
import { Notice, ProblemCard } from "../elements/Notice";
import { Card } from "./Card";
import { Credit, sharedCredit } from "./ItemFacts";

const K_STEP = 24;
const K_MAX = 200;

/** The answer, or what stands in for it. */
export function Results() {
  return (
    <section id="results" class="results" tabIndex={-1} aria-label="Results" aria-busy={isBusy.value}>
      {linkNotice.value && <p class="notice">{linkNotice.value}</p>}
      {answer.value?.notice && <p class="notice">{answer.value.notice}</p>}
      <Content />
    </section>
  );
}

function Content() {
  const current = answer.value;
  if (phase.value === "failed" && problem.value) return <ProblemCard problem={problem.value} onRetry={retry} />;
  if (!current) return <Skeleton />;
  if (current.safety?.unsafe) return <Unsafe />;
  if (current.matches.length === 0) return <Empty />;
  if (current.no_confident_match && !revealed.value) return <NothingLikeIt />;
  const shared = sharedCredit(current.matches.map(({ item }) => item));
  return (
    <div class={isBusy.value ? "stale" : undefined}>
      <Heading current={current} />
      <ol class="grid">
        {current.matches
          .filter((match) => !isRejected(match.item.id))
          .map((match) => (
            <li key={match.item.id}>
              <Card match={match} credited={shared !== null} />
            </li>
          ))}
      </ol>
      {shared && (
        <div class="credit-shared">
          All these pictures: <Credit item={shared} />
        </div>
      )}
      <More />
    </div>
  );
}

function Heading({ current }: { current: SearchAnswer }) {
  const { confidence, matches, index, timing_ms } = current;
  const title = useRef<HTMLHeadingElement>(null);
  // The button that revealed them is gone, and the focus with it.
  useEffect(() => {
    if (revealed.value) title.current?.focus({ preventScroll: true });
  }, []);
  return (
    <header class="result-head">
      <Gauge value={confidence} />
      <div class="result-words">
        <h2 class="result-title" ref={title} tabIndex={-1}>
          {titleOf(current)}
        </h2>
        <p class="muted">
          The {formatCount(matches.length)} nearest of {formatCount(index.images)} pictures
          {timing_ms["total"] !== undefined && `, in ${formatMilliseconds(timing_ms["total"])}`}
        </p>
      </div>
      <button type="button" class="button button-quiet" aria-label="Copy link" onClick={() => void copyLink()}>
        <Icon name="link" />
        <span>Copy link</span>
      </button>
    </header>
  );
}

function titleOf({ confidence, matches, no_confident_match }: SearchAnswer): string {
  if (no_confident_match) return "The nearest, though nothing is like it";
  if (query.value?.kind === "item") return `${likelihood(confidence)} more of its kind`;
  return matches[0]?.verdict === "exact"
    ? "The same picture is in the catalogue"
    : `${likelihood(confidence)} in the catalogue`;
}

async function copyLink(): Promise<void> {
  const held = query.value?.kind === "item" ? "" : " It holds the picture's vector, not the picture.";
  try {
    await navigator.clipboard.writeText(location.href);
    toast.value = { text: `Link copied.${held}` };
  } catch {
    toast.value = { text: "The browser did not allow copying. The link is in the address bar." };
  }
}

function Gauge({ value }: { value: number }) {
  const around = 2 * Math.PI * 20;
  return (
    <span class="gauge" title="Probability that the catalogue has what you look for">
      <svg viewBox="0 0 48 48" aria-hidden="true">
        <circle cx="24" cy="24" r="20" />
        <circle class="gauge-value" cx="24" cy="24" r="20" stroke-dasharray={`${value * around} ${around}`} />
      </svg>
      <span class={value > 0.99 ? "gauge-sure" : undefined}>
        {formatPercent(value).replace(/[\s%]/g, "")}
        <small>%</small>
      </span>
    </span>
  );
}

function More() {
  const k = options.value.k;
  const shown = answer.value?.matches.length ?? 0;
  if (shown < k || k >= K_MAX) return null;
  return (
    <div class="more">
      <button
        type="button"
        class="button"
        disabled={isBusy.value}
        onClick={() => void changeOptions({ k: Math.min(k + K_STEP, K_MAX) })}
      >
        Show more
      </button>
    </div>
  );
}

function NothingLikeIt() {
  const confidence = answer.value?.confidence ?? 0;
  return (
    <Notice
      icon="nothing"
      title={confidence < 0.2 ? "Nothing in the catalogue is like it" : "Probably nothing like it here"}
    >
      <p>
        {confidence < 0.01 ? "Less than a 1 % chance" : `A ${formatPercent(confidence)} chance`} that the catalogue has
        what you look for.
        {canEdit.value && !isEdited.value && " A box around the thing itself often helps."}
      </p>
      <button type="button" class="button" onClick={() => (revealed.value = true)}>
        Show the nearest anyway
      </button>
    </Notice>
  );
}

function Empty() {
  if (countFilters(options.value.filters) === 0) {
    return (
      <Notice icon="nothing" title="The catalogue is empty">
        <p>Once something is indexed, it can be found here.</p>
      </Notice>
    );
  }
  return (
    <Notice icon="filter" title="No item passes these filters">
      <p>With fewer filters there is more to compare with.</p>
      <button type="button" class="button" onClick={() => void changeOptions({ filters: {} })}>
        Clear all filters
      </button>
    </Notice>
  );
}

function Unsafe() {
  return (
    <Notice icon="shield" title="This picture is not searched for">
      <p>
        The safety check takes it for explicit.
        {canEdit.value ? " If that is wrong, draw a box around the part that matters." : ""}
      </p>
    </Notice>
  );
}

/** Where the cards will be. After a pause of its owner's free server, the first answer takes some seconds. */
function Skeleton() {
  const words = useRef<HTMLParagraphElement>(null);
  useEffect(() => {
    const timer = setTimeout(() => {
      if (words.current)
        words.current.textContent = "The search is waking up: the first one after a pause takes some seconds.";
    }, 4000);
    return () => clearTimeout(timer);
  }, []);
  return (
    <>
      <p class="waiting" ref={words} role="status">
        Looking…
      </p>
      <ol class="grid" aria-hidden="true">
        {Array.from({ length: 8 }, (_, index) => (
          <li key={index} class="card card-skeleton">
            <span class="card-picture" />
            <span class="line" />
            <span class="line line-short" />
          </li>
        ))}
      </ol>
    </>
  );
}
