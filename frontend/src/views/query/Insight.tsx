import { STAGES } from "../../endpoint/contract";
import { owner } from "../../owner";
import { answer, isBusy } from "../../state";
import { formatCount, formatMilliseconds, formatPercent, sentenceCase } from "../../words/format";
import { LABEL_MIN, labelName } from "../../words/labels";
import { Bar } from "../elements/Bar";
import { Icon } from "../elements/icons";

const LABELS_SHOWN = 5;
/** Below it, a kind says nothing. */
const GUESS_MIN = 0.2;

/** What the picture seems to show, whether it is safe, and how the answer came about. */
export function Insight() {
  const current = answer.value;
  if (!current) return isBusy.value ? <Expected /> : null;
  const { safety } = current;
  // Of a picture with nothing in it nothing can be said.
  const found = current.query.blank ? [] : (current.labels ?? []);
  const labels = found.filter(({ probability }) => owner.value || probability >= LABEL_MIN);
  const named = labels.map((label) => ({ ...label, name: labelName(label.name) }));
  const guess = !current.query.blank && current.guess && current.guess.probability >= GUESS_MIN ? current.guess : null;
  return (
    <section class="panel insight" aria-label="About this search">
      {(named.length > 0 || guess) && <h2 class="panel-title">What it seems to show</h2>}
      {named.length > 0 && (
        <ul class="labels">
          {named.slice(0, LABELS_SHOWN).map(({ name, probability }) => (
            <li key={name}>
              <span class="label-name">{name}</span>
              <span class="label-value">{formatPercent(probability)}</span>
              <Bar value={probability} />
            </li>
          ))}
        </ul>
      )}
      {guess && (
        <p class="guess">
          {guess.probability >= 0.5 ? "Probably" : "Perhaps"} <strong>{sentenceCase(guess.collection)}</strong>
          <span class="muted"> · {formatPercent(guess.probability)}, by its neighbours</span>
        </p>
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

/** Two words for visitors; the classes are the owner's. */
function Safety({ unsafe, probabilities }: { unsafe: boolean; probabilities: Record<string, number> }) {
  const sorted = Object.entries(probabilities).sort(([, a], [, b]) => b - a);
  return (
    <div class="safety">
      <Icon name={unsafe ? "alert" : "shield"} size={18} />
      <p>
        {unsafe ? "Held back" : "Safe to show"}
        {owner.value && (
          <span class="muted"> · {sorted.map(([name, value]) => `${name} ${formatPercent(value)}`).join(", ")}</span>
        )}
      </p>
    </div>
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
          {(metric || mode !== "fast" || owner.value) && <span class="muted"> · {metric ?? mode}</span>}
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
          <dt>Chance that the catalogue has it</dt>
          <dd>{formatPercent(current.confidence)}</dd>
        </div>
        <div>
          <dt>Pictures searched</dt>
          <dd>{formatCount(index.images)}</dd>
        </div>
      </dl>
    </details>
  );
}
