import { useEffect, useRef, useState } from "preact/hooks";
import { countFilters } from "../../address/link";
import type { SearchAnswer } from "../../endpoint/contract";
import { callHarmless, HARMLESS_KEPT, isRejected } from "../../endpoint/feedback";
import { changeOptions, retry } from "../../search";
import { answer, can, canEdit, isBusy, linkNotice, options, phase, problem, subject } from "../../state";
import { formatCount } from "../../words/format";
import { ADVICE_BLANK } from "../../words/sureness";
import { Notice, ProblemCard } from "../elements/Notice";
import { Card } from "./Card";
import { Credit, sharedCredit } from "./ItemFacts";
import { SurenessBand } from "./SurenessBand";

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
  const trouble = phase.value === "failed" ? problem.value : null;
  if (!current) return trouble ? <ProblemCard problem={trouble} onRetry={retry} /> : <Skeleton />;
  return (
    <>
      {trouble && <ProblemCard problem={trouble} onRetry={retry} />}
      {trouble && current.matches.length > 0 && <p class="waiting">Below are the results from before.</p>}
      <Answer current={current} />
    </>
  );
}

function Answer({ current }: { current: SearchAnswer }) {
  if (current.safety?.unsafe) return <HeldBack key={current.query.vector} />;
  if (current.matches.length === 0) return current.query.blank ? <Blank words={current.query.blank} /> : <Empty />;
  const shared = sharedCredit(current.matches.map(({ item }) => item));
  return (
    <div class={isBusy.value || phase.value === "failed" ? "stale" : undefined}>
      <SurenessBand current={current} />
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
      <p class="shown-count">
        The {formatCount(current.matches.length)} nearest of {formatCount(current.index.images)} pictures
      </p>
      <More />
    </div>
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

/** A picture in which there is nothing to compare. */
function Blank({ words }: { words: string }) {
  return (
    <Notice icon="picture" title={words}>
      <p>{ADVICE_BLANK}</p>
    </Notice>
  );
}

function HeldBack() {
  return (
    <Notice icon="alert" title="This picture is held back">
      <p>
        The safety check does not want it shown, so it is not searched for.
        {canEdit.value ? " If that is wrong, draw a box around the part that matters." : ""}
      </p>
      <Harmless />
    </Notice>
  );
}

/** Says to the owner that it should not have been held back. */
function Harmless() {
  const [said, setSaid] = useState<"no" | "sending" | "yes">("no");
  const asked = subject.value;
  if (!asked || !can("feedback")) return null;
  if (said === "yes") return <p>{HARMLESS_KEPT}</p>;
  const say = async () => {
    setSaid("sending");
    setSaid((await callHarmless(asked)) ? "yes" : "no");
  };
  return (
    <button type="button" class="button" disabled={said === "sending"} onClick={() => void say()}>
      This is harmless
    </button>
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
