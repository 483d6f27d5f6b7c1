import { useEffect } from "preact/hooks";
import { isOn } from "../../device/switch";
import { STAGES, type StatsAnswer } from "../../endpoint/contract";
import { owner, toggleOwner } from "../../owner";
import { refreshStats } from "../../search/connect";
import { config, stats } from "../../state";
import {
  formatAmount,
  formatCount,
  formatDecimal,
  formatGeneration,
  formatMilliseconds,
  formatShare,
} from "../../words/format";
import { t } from "../../words/messages";
import { Bar } from "../elements/Bar";
import { Dialog } from "../elements/Dialog";
import { Notes } from "../elements/Notes";

/** What this is, what it holds, how well it works and what it has used. */
export function About({ onClose }: { onClose: () => void }) {
  const now = stats.value;
  // The numbers are current, not those of when the page was opened. Without an answer, the old ones are the best there are.
  useEffect(() => void refreshStats().catch(() => undefined), []);
  return (
    <Dialog title={t("about.title", { title: config.value.title })} wide onClose={onClose}>
      <div class="about">
        <p>
          {t("about.text")} {t(isOn.value ? "device.on" : "about.sent")}
        </p>
        {now ? <Facts stats={now} /> : <p class="muted">{t("about.silent")}</p>}
        {config.value.notes.length > 0 && (
          <section>
            <h3>{t("about.credits")}</h3>
            <Notes />
          </section>
        )}
        <button type="button" class="text-button about-owner" aria-pressed={owner.value} onClick={toggleOwner}>
          {t("about.owner")}
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
        <h3>{t("about.catalogue")}</h3>
        {rows([
          [t("about.pictures"), formatCount(now.images)],
          [t("about.fresh"), now.fresh > 0 && formatCount(now.fresh)],
          [t("about.segments"), formatCount(now.segments)],
          [t("about.merged"), formatGeneration(now.generation)],
        ])}
        {now.notice && <p class="notice">{owner.value ? now.notice : t("notice.index_partly_read")}</p>}
      </section>
      <section>
        <h3>{t("about.model")}</h3>
        {rows([
          [t("about.name"), now.model.name],
          [t("about.dimension"), formatCount(now.model.dimension)],
          [t("about.made"), now.model.summary],
          [t("about.licences"), now.model.licences],
          [t("about.learned"), formatCount(now.learned_from ?? 0)],
        ])}
      </section>
      <section>
        <h3>{t("about.how")}</h3>
        <Audit audit={now.audit} />
        <Stages stages={now.stages_ms} searches={now.searches} />
      </section>
      {owner.value && <Month stats={now} />}
    </>
  );
}

/** Live recall: some `fast` answers are checked against `exact` ones in idle time. */
function Audit({ audit }: { audit: StatsAnswer["audit"] | undefined }) {
  return (
    <p>
      {audit?.samples
        ? t("about.audit", { share: formatShare(audit.recall_at_12), count: audit.samples })
        : t("about.audit.none")}
    </p>
  );
}

/** What was used of the free allowances, and how much of the owner's budget the month has cost beyond them. */
function Month({ stats: { meters = [], budget = 0, spent = 0 } }: { stats: StatsAnswer }) {
  const [first] = meters;
  if (!first) return null;
  const sum = (amount: number) => formatDecimal(amount, 2);
  return (
    <section>
      <h3>{t("about.free")}</h3>
      <p class="muted">
        {budget > 0
          ? t("about.budget.text", { budget: sum(budget) })
          : t("about.free.text", { share: formatShare(first.limit / first.free) })}
      </p>
      <ul class="labels">
        {budget > 0 && (
          <li>
            <span>
              {t("about.spent")} <span class="muted">{t("about.month")}</span>
            </span>
            <span class="label-value">{t("about.used", { used: sum(spent), free: sum(budget) })}</span>
            <Bar value={Math.min(spent / budget, 1)} />
          </li>
        )}
        {meters.map(({ resource, service, metric, per, used, free }) => (
          <li key={resource}>
            <span>
              {service}: {metric} <span class="muted">{t(per === "day" ? "about.today" : "about.month")}</span>
            </span>
            <span class="label-value">
              {t("about.used", { used: formatAmount(resource, used), free: formatAmount(resource, free) })}
            </span>
            <Bar value={free > 0 ? Math.min(used / free, 1) : 1} />
          </li>
        ))}
      </ul>
    </section>
  );
}

function Stages({ stages, searches }: { stages: StatsAnswer["stages_ms"]; searches: number }) {
  const names = ([...STAGES, "total"] as const).filter((name) => stages[name]);
  if (names.length === 0) return <p class="muted">{t("about.noSearches")}</p>;
  return (
    <table class="stages-table">
      <caption>{t("about.latest", { count: searches })}</caption>
      <thead>
        <tr>
          <th scope="col">{t("about.stage")}</th>
          <th scope="col">{t("about.typical")}</th>
          <th scope="col">{t("about.slowest")}</th>
        </tr>
      </thead>
      <tbody>
        {names.map((name) => (
          <tr key={name}>
            <th scope="row">{t(`stage.${name}`)}</th>
            <td>{formatMilliseconds(stages[name]?.["p50"] ?? 0)}</td>
            <td>{formatMilliseconds(stages[name]?.["p99"] ?? 0)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
