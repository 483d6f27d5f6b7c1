import { STAGES } from "../../endpoint/contract";
import { owner } from "../../owner";
import { answer, isBusy, query } from "../../state";
import { formatCount, formatMilliseconds, formatPercent, sentenceCase } from "../../words/format";
import { LABEL_MIN, labelName } from "../../words/labels";
import { rich, t } from "../../words/messages";
import { Bar } from "../elements/Bar";
import { Icon } from "../elements/icons";

const LABELS_SHOWN = 5;
/** Below this probability, a kind means nothing. */
const GUESS_MIN = 0.2;

/** What the picture seems to show, whether it is safe, and how the answer came about. */
export function Insight() {
  const current = answer.value;
  if (!current) return isBusy.value ? <Expected /> : null;
  const { safety } = current;
  // There is nothing to say about an empty picture, or without one.
  const isSilent = current.query.blank || query.value?.kind === "words";
  const found = isSilent ? [] : (current.labels ?? []);
  const labels = found.filter(({ probability }) => owner.value || probability >= LABEL_MIN);
  const named = labels.map((label) => ({ ...label, name: labelName(label.name) }));
  const guess = !isSilent && current.guess && current.guess.probability >= GUESS_MIN ? current.guess : null;
  return (
    <section class="panel insight" aria-label={t("insight.region")}>
      {(named.length > 0 || guess) && <h2 class="panel-title">{t("insight.shows")}</h2>}
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
          {rich(guess.probability >= 0.5 ? "insight.probably" : "insight.perhaps", {
            name: <strong dir="auto">{sentenceCase(guess.collection)}</strong>,
          })}
          <span class="muted"> · {t("insight.neighbours", { percent: formatPercent(guess.probability) })}</span>
        </p>
      )}
      {safety && <Safety unsafe={safety.unsafe} probabilities={safety.probabilities} />}
      <Timing />
    </section>
  );
}

/** The panel before it has an answer, so that what is below it stays where it is. */
function Expected() {
  if (query.value?.kind === "words") return null;
  return (
    <section class="panel insight insight-expected" aria-hidden="true">
      <h2 class="panel-title">{t("insight.shows")}</h2>
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
        {t(unsafe ? "insight.unsafe" : "insight.safe")}
        {owner.value && (
          <span class="muted"> · {sorted.map(([name, value]) => `${name} ${formatPercent(value)}`).join(", ")}</span>
        )}
      </p>
    </div>
  );
}

const modeName = (mode: string): string => t(mode === "exact" ? "mode.exact" : "mode.fast");

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
          {t("insight.answered", { time: formatMilliseconds(timing["total"] ?? sum) })}
          {(metric || mode !== "fast" || owner.value) && <span class="muted"> · {metric ?? modeName(mode)}</span>}
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
              {t(`stage.${name}`)}
            </dt>
            <dd>{formatMilliseconds(timing[name] ?? 0)}</dd>
          </div>
        ))}
        <div>
          <dt>{t("insight.chance")}</dt>
          <dd>{formatPercent(current.confidence)}</dd>
        </div>
        <div>
          <dt>{t("insight.searched")}</dt>
          <dd>{formatCount(index.images)}</dd>
        </div>
      </dl>
    </details>
  );
}
