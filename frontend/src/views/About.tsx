import type { StatsAnswer } from "../contract";
import { formatCount, formatMilliseconds, formatPercent, sentenceCase } from "../format";
import { config, stats } from "../state";
import { Bar } from "./Bar";
import { Dialog } from "./Dialog";

/** What this is, what it holds, how well it does and what it has used. */
export function About({ onClose }: { onClose: () => void }) {
  const now = stats.value;
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
            <ul class="notes">
              {config.value.notes.map(({ text, href }) => (
                <li key={text}>
                  {href ? (
                    <a href={href} target="_blank" rel="noopener noreferrer">
                      {text}
                    </a>
                  ) : (
                    text
                  )}
                </li>
              ))}
            </ul>
          </section>
        )}
      </div>
    </Dialog>
  );
}

function Facts({ stats: now }: { stats: StatsAnswer }) {
  const rows = (entries: [string, string][]) => (
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
          ["Added lately", formatCount(now.fresh)],
          [
            "Index generation",
            `${now.generation}, in ${formatCount(now.segments)} ${now.segments === 1 ? "segment" : "segments"}`,
          ],
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
        ])}
      </section>
      <section>
        <h3>How it does</h3>
        <Audit {...(now as Audited)} />
        <Stages stages={now.stages_ms} searches={now.searches} />
      </section>
      <Meters meters={now.meters ?? []} />
    </>
  );
}

/** Live recall, where a server audits itself: `fast` answers checked against `exact` ones in idle time. */
interface Audited {
  audit?: { samples: number; recall_at_12: number } | null;
}

function Audit({ audit }: Audited) {
  if (!audit?.samples) return null;
  return (
    <p>
      Of {formatCount(audit.samples)} fast answers checked against exact ones, {formatPercent(audit.recall_at_12)} of
      the nearest twelve were found.
    </p>
  );
}

function Meters({ meters }: { meters: NonNullable<StatsAnswer["meters"]> }) {
  if (meters.length === 0) return null;
  return (
    <section>
      <h3>Used of what is free</h3>
      <ul class="labels">
        {meters.map(({ resource, service, metric, per, used, free }) => (
          <li key={resource}>
            <span>
              {service}: {metric} <span class="muted">{per === "day" ? "today" : "this month"}</span>
            </span>
            <span class="label-value">
              {formatCount(Math.round(used))} of {formatCount(free)}
            </span>
            <Bar value={free > 0 ? Math.min(used / free, 1) : 1} />
          </li>
        ))}
      </ul>
    </section>
  );
}

function Stages({ stages, searches }: { stages: StatsAnswer["stages_ms"]; searches: number }) {
  const names = Object.keys(stages);
  if (names.length === 0) return <p class="muted">No searches since this server started.</p>;
  return (
    <table class="stages-table">
      <caption>Over the last {formatCount(searches)} searches of this server</caption>
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
