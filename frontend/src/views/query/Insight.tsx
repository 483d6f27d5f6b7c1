import { STAGES } from "../../endpoint/contract";
import { answer, isBusy } from "../../state";
import { formatCount, formatMilliseconds, formatPercent, sentenceCase } from "../../words/format";
import { Bar } from "../elements/Bar";
import { Icon } from "../elements/icons";

const LABELS_SHOWN = 5;
/** Below it, a label or a kind says nothing. */
const LABEL_MIN = 0.01;
const GUESS_MIN = 0.2;

/** What the picture seems to show, whether it is safe, and how the answer came about. */
export function Insight() {
  const current = answer.value;
  if (!current) return isBusy.value ? <Expected /> : null;
  const { safety } = current;
  const labels = (current.labels ?? []).filter(({ probability }) => probability >= LABEL_MIN);
  const guess = current.guess && current.guess.probability >= GUESS_MIN ? current.guess : null;
  return (
    <section class="panel insight" aria-label="About this search">
      {(labels.length > 0 || guess) && <h2 class="panel-title">What it seems to show</h2>}
      {guess && (
        <p class="guess">
          {guess.probability >= 0.5 ? "Probably" : "Perhaps"} <strong>{sentenceCase(guess.collection)}</strong>
          <span class="muted"> · {formatPercent(guess.probability)}, by its neighbours</span>
        </p>
      )}
      {labels.length > 0 && (
        <ul class="labels">
          {labels.slice(0, LABELS_SHOWN).map((label) => (
            <li key={label.name}>
              <span class="label-name">{sentenceCase(label.name)}</span>
              <span class="label-value">{formatPercent(label.probability)}</span>
              <Bar value={label.probability} />
            </li>
          ))}
        </ul>
      )}
      {safety && <Safety unsafe={safety.unsafe} probabilities={safety.probabilities} />}
      <Timing />
    </section>
  );
}

/** The panel before it has an answer, so that what is below it stays where it is. */
function Expected() {
  return (
    <section class="panel insight insight-expected" aria-hidden="true">
      <h2 class="panel-title">What it seems to show</h2>
      <span class="line" />
      <span class="line line-short" />
      <span class="line" />
      <span class="line line-short" />
    </section>
  );
}

function Safety({ unsafe, probabilities }: { unsafe: boolean; probabilities: Record<string, number> }) {
  const sorted = Object.entries(probabilities).sort(([, a], [, b]) => b - a);
  const [first] = sorted;
  const all = sorted.map(([name, value]) => `${name} ${formatPercent(value)}`).join(", ");
  return (
    <p class="safety" title={all}>
      <Icon name={unsafe ? "alert" : "shield"} size={18} />
      <span>
        {unsafe ? "Not safe to show" : "Safe to show"}
        {first && (
          <span class="muted">
            {" "}
            · {first[0]} {formatPercent(first[1])}
          </span>
        )}
      </span>
    </p>
  );
}

function Timing() {
  const current = answer.value;
  if (!current) return null;
  const { timing_ms: timing, index, mode, metric } = current;
  const stages = STAGES.filter((name) => timing[name] !== undefined);
  const sum = stages.reduce((total, name) => total + (timing[name] ?? 0), 0) || 1;
  return (
    <details class="timing">
      <summary>
        <span>
          Answered in {formatMilliseconds(timing["total"] ?? sum)}
          <span class="muted"> · {metric ?? mode}</span>
        </span>
        <Icon name="chevron" size={18} />
      </summary>
      <span class="stages" aria-hidden="true">
        {stages.map((name) => (
          <span key={name} class={`stage-${name}`} style={{ width: `${((timing[name] ?? 0) / sum) * 100}%` }} />
        ))}
      </span>
      <dl class="facts">
        {stages.map((name) => (
          <div key={name}>
            <dt>
              <span class={`key stage-${name}`} aria-hidden="true" />
              {sentenceCase(name)}
            </dt>
            <dd>{formatMilliseconds(timing[name] ?? 0)}</dd>
          </div>
        ))}
        <div>
          <dt>Pictures searched</dt>
          <dd>{formatCount(index.images)}</dd>
        </div>
      </dl>
    </details>
  );
}
