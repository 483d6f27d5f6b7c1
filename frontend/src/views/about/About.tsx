import { useEffect } from "preact/hooks";
import { STAGES, type StatsAnswer } from "../../endpoint/contract";
import { owner, toggleOwner } from "../../owner";
import { refreshStats } from "../../search";
import { config, stats } from "../../state";
import {
  formatAmount,
  formatCount,
  formatGeneration,
  formatMilliseconds,
  formatShare,
  sentenceCase,
} from "../../words/format";
import { Bar } from "../elements/Bar";
import { Dialog } from "../elements/Dialog";
import { Notes } from "../elements/Notes";

/** What this is, what it holds, how well it does and what it has used. */
export function About({ onClose }: { onClose: () => void }) {
  const now = stats.value;
  // What it says is of now, not of when the page was opened. Without an answer, the old numbers are the best there are.
  useEffect(() => void refreshStats().catch(() => undefined), []);
  return (
    <Dialog title={`About ${config.value.title}`} wide onClose={onClose}>
      <div class="about">
        <p>
          A picture becomes a list of numbers that tells what it looks like; the catalogue's pictures have become such
          lists before. Those nearest to yours are the answer. The picture you search with is scaled down in your
          browser, and the server forgets it after answering.
        </p>
        {now ? <Facts stats={now} /> : <p class="muted">The search endpoint has not answered yet.</p>}
        {config.value.notes.length > 0 && (
          <section>
            <h3>Credits and notes</h3>
            <Notes />
          </section>
        )}
        <button type="button" class="text-button about-owner" aria-pressed={owner.value} onClick={toggleOwner}>
          Show what concerns the owner
        </button>
      </div>
    </Dialog>
  );
}

function Facts({ stats: now }: { stats: StatsAnswer }) {
  const rows = (entries: [string, string | false][]) => (
    <dl class="facts">
      {entries
        .filter(([, value]) => value)
        .map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
  return (
    <>
      <section>
        <h3>The catalogue</h3>
        {rows([
          ["Pictures", formatCount(now.images)],
          ["Not merged yet", now.fresh > 0 && formatCount(now.fresh)],
          ["Segments", formatCount(now.segments)],
          ["Last merged", formatGeneration(now.generation)],
        ])}
        {now.notice && <p class="notice">{now.notice}</p>}
      </section>
      <section>
        <h3>The model</h3>
        {rows([
          ["Name", now.model.name],
          ["Numbers per picture", formatCount(now.model.dimension)],
          ["Made of", now.model.summary],
          ["Licences", now.model.licences],
          ["Learned from visitors' photos", formatCount(now.learned_from ?? 0)],
        ])}
      </section>
      <section>
        <h3>How it does</h3>
        <Audit audit={now.audit} />
        <Stages stages={now.stages_ms} searches={now.searches} />
      </section>
      {owner.value && <Meters meters={now.meters ?? []} />}
    </>
  );
}

/** Live recall: some `fast` answers are checked against `exact` ones in idle time. */
function Audit({ audit }: { audit: StatsAnswer["audit"] | undefined }) {
  return (
    <p>
      {audit?.samples
        ? `${formatShare(audit.recall_at_12)} of the nearest twelve were found, in ${formatCount(audit.samples)} fast ${audit.samples === 1 ? "answer" : "answers"} checked against exact ones.`
        : "Some fast answers are checked against exact ones in idle time; none has been so far."}
    </p>
  );
}

function Meters({ meters }: { meters: NonNullable<StatsAnswer["meters"]> }) {
  const [first] = meters;
  if (!first) return null;
  return (
    <section>
      <h3>Used of what Google Cloud gives for free</h3>
      <p class="muted">
        On Google Cloud, Visor stops and waits at {formatShare(first.limit / first.free)} of any of these. Elsewhere it
        only counts.
      </p>
      <ul class="labels">
        {meters.map(({ resource, service, metric, per, used, free }) => (
          <li key={resource}>
            <span>
              {service}: {metric} <span class="muted">{per === "day" ? "today" : "this month"}</span>
            </span>
            <span class="label-value">
              {formatAmount(resource, used)} of {formatAmount(resource, free)}
            </span>
            <Bar value={free > 0 ? Math.min(used / free, 1) : 1} />
          </li>
        ))}
      </ul>
    </section>
  );
}

function Stages({ stages, searches }: { stages: StatsAnswer["stages_ms"]; searches: number }) {
  const names = [...STAGES, "total"].filter((name) => stages[name]);
  if (names.length === 0) return <p class="muted">No searches since this server started.</p>;
  return (
    <table class="stages-table">
      <caption>Over the latest of {formatCount(searches)} searches since this server started</caption>
      <thead>
        <tr>
          <th scope="col">Stage</th>
          <th scope="col">Typical</th>
          <th scope="col">Slowest 1 %</th>
        </tr>
      </thead>
      <tbody>
        {names.map((name) => (
          <tr key={name}>
            <th scope="row">{sentenceCase(name)}</th>
            <td>{formatMilliseconds(stages[name]?.["p50"] ?? 0)}</td>
            <td>{formatMilliseconds(stages[name]?.["p99"] ?? 0)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
