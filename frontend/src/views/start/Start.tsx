import { useState } from "preact/hooks";
import { forget, type Recent, recent } from "../../recent";
import { connect, EXAMPLES } from "../../search/connect";
import { browse, searchItem } from "../../search/search";
import { announce, config, examples, facets, isLocal, offline, stats } from "../../state";
import { formatCount, sentenceCase } from "../../words/format";
import { rich, t } from "../../words/messages";
import { Ask } from "../ask/Ask";
import { DeviceSwitch } from "../elements/DeviceSwitch";
import { Icon } from "../elements/icons";
import { Loading } from "../elements/Loading";
import { ProblemCard } from "../elements/Notice";
import { Thumb } from "../elements/Thumb";

const COLLECTIONS_SHOWN = 12;

/** The page before anything is searched for. */
export function Start() {
  const count = stats.value?.images;
  const keys = /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘ V" : "Ctrl V";
  const asked = count ? t("start.lead.count", { count }) : t("start.lead");
  const shown = count ? t("start.local.lead.count", { count }) : t("start.local.lead");
  return (
    <div class="start">
      <h1>{t(isLocal.value ? "start.local.title" : "start.title")}</h1>
      <p class="lead">{config.value.tagline ?? (isLocal.value ? shown : asked)}</p>
      {offline.value ? (
        <ProblemCard problem={offline.value} onRetry={connect} />
      ) : (
        <>
          <div class="drop-card">
            <Ask />
            <p class="drop-sub with-mouse">{rich("start.drop", { keys: <kbd>{keys}</kbd> })}</p>
            <Loading />
            <DeviceSwitch />
          </div>
          <Lately />
          <Examples />
          <Collections />
          {stats.value?.images === 0 && <p class="lead">{t("start.empty")}</p>}
        </>
      )}
    </div>
  );
}

/** What this browser has searched for. */
function Lately() {
  if (recent.value.length === 0) return null;
  const drop = (which: Recent | null) => {
    forget(which);
    announce(t("start.recent.deleted"));
  };
  return (
    <section class="lately" aria-labelledby="lately-title">
      <h2 id="lately-title">{t("start.recent")}</h2>
      <ul>
        {recent.value.map((one) => (
          <li key={one.link} class="lately-one">
            <a href={`#${one.link}`} dir="auto">
              {one.picture ? <Thumb src={one.picture} alt="" /> : <Icon name="search" size={18} />}
              <span>{one.name}</span>
            </a>
            <button
              type="button"
              class="icon-button"
              aria-label={t("start.recent.delete", { name: one.name })}
              onClick={() => drop(one)}
            >
              <Icon name="close" size={16} />
            </button>
          </li>
        ))}
      </ul>
      <p class="lately-foot">
        <span>{t("start.recent.kept")}</span>
        <button type="button" class="text-button" onClick={() => drop(null)}>
          {t("start.recent.clear")}
        </button>
      </p>
    </section>
  );
}

/** What the catalogue has, for those who do not know yet what to search for. */
function Collections() {
  const [all, setAll] = useState(false);
  const found = facets.value?.collection ?? [];
  if (found.length < 2) return null;
  return (
    <section class="collections" aria-labelledby="collections-title">
      <h2 id="collections-title">{t("start.collections")}</h2>
      <ul>
        {(all ? found : found.slice(0, COLLECTIONS_SHOWN)).map(({ value, count }) => (
          <li key={value}>
            <button type="button" class="chip" onClick={() => void browse(value)}>
              <span dir="auto">{sentenceCase(value)}</span>
              <span class="muted" aria-hidden="true">
                {formatCount(count)}
              </span>
              <span class="visually-hidden">, {t("start.items", { count })}</span>
            </button>
          </li>
        ))}
      </ul>
      {found.length > COLLECTIONS_SHOWN && (
        <button type="button" class="text-button" aria-expanded={all} onClick={() => setAll(!all)}>
          {all ? t("filters.fewer") : t("filters.all", { count: found.length })}
        </button>
      )}
    </section>
  );
}

function Examples() {
  const items = examples.value ?? Array.from({ length: EXAMPLES }, () => null);
  if (items.length === 0) return null;
  return (
    <section class="examples" aria-labelledby="examples-title">
      <h2 id="examples-title">{t("start.examples")}</h2>
      <ul>
        {items.map((item, index) => (
          <li key={item?.id ?? index}>
            {item ? (
              <button type="button" class="example" onClick={() => void searchItem(item)}>
                <Thumb src={item.image_url} alt={item.title || t("card.untitled")} eager />
              </button>
            ) : (
              <span class="example-expected" />
            )}
          </li>
        ))}
      </ul>
    </section>
  );
}
