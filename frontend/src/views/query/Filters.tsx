import { useState } from "preact/hooks";
import type { AttributeFacet, Filters as FilterSet } from "../../endpoint/contract";
import { chosenOf, type Facet, itemsPassing, valuesOf, withValues } from "../../endpoint/facets";
import { conditionOf, countFilters, toggleRefused } from "../../filters";
import { owner } from "../../owner";
import { changeOptions } from "../../search/search";
import { answer, askedAs, facets, isBusy, options, phase, problem } from "../../state";
import { fieldName, valueName } from "../../words/filters";
import { formatShare } from "../../words/format";
import { t } from "../../words/messages";
import { Icon } from "../elements/icons";
import { AddPicture } from "./AddPicture";
import { Choice, Unknown } from "./Choice";
import { Order } from "./Order";
import { AttributeRange, Dates, Price } from "./Ranges";

const SHOWN = 7;
/** SciPy's metrics that suit real vectors. */
const METRICS = [
  "braycurtis",
  "canberra",
  "chebyshev",
  "cityblock",
  "correlation",
  "cosine",
  "euclidean",
  "jensenshannon",
  "minkowski",
  "seuclidean",
  "sqeuclidean",
];

const change = (filters: FilterSet) => changeOptions({ filters });

/** What a match must be, and how to look for it. */
export function Filters() {
  const [open, setOpen] = useState(() => matchMedia("(min-width: 60rem)").matches);
  const count = countFilters(options.value.filters);
  const passing = itemsPassing();
  // On a phone what went wrong stands below the filters, out of sight.
  const trouble = phase.value === "failed" ? problem.value : null;
  const attributes = Object.entries(facets.value?.attributes ?? {});
  return (
    <details class="panel filters" open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary class="panel-title filters-head">
        <Icon name="filter" size={18} />
        <span>
          <span class="where-wide">{t("filters.title")}</span>
          <span class="where-narrow">{t("filters.title.order")}</span>
          {count > 0 && <span class="badge">{count}</span>}
        </span>
        <Icon name="chevron" size={18} />
      </summary>
      <div class="filter-body">
        <div class="where-narrow">
          <Order />
          <AddPicture />
        </div>
        {count > 0 && (
          <p class="filter-state">
            <span class="muted">{passing === null ? trouble?.title : t("filters.passing", { count: passing })}</span>
            <button type="button" class="text-button" onClick={() => void change({})}>
              {t("filters.clear")}
            </button>
          </p>
        )}
        <FacetGroup facet="collection" />
        <Price />
        {attributes.map(([name, found]) => (
          <Attribute key={name} name={name} found={found} />
        ))}
        <FacetGroup facet="country" />
        <FacetGroup facet="label" />
        <Dates />
        <FacetGroup facet="source" onlyIfSeveral />
        <Advanced />
        <ShowResults passing={passing} />
      </div>
    </details>
  );
}

/** On a phone the results are below the filters, out of sight. */
function ShowResults({ passing }: { passing: number | null }) {
  const count = passing ?? answer.value?.matches.length ?? 0;
  const show = (event: { currentTarget: HTMLElement }) => {
    event.currentTarget.closest("details")?.removeAttribute("open");
    const results = document.getElementById("results");
    results?.focus({ preventScroll: true });
    results?.scrollIntoView({ block: "start" });
  };
  return (
    <button type="button" class="button button-primary show-results" disabled={isBusy.value || !count} onClick={show}>
      {t("filters.show", { count })}
    </button>
  );
}

/** An attribute that the owner declared: values to tick, or a range. */
function Attribute({ name, found }: { name: string; found: AttributeFacet }) {
  if (found.type === "keyword" || found.type === "flag") return <FacetGroup facet={`@${name}`} />;
  return <AttributeRange name={name} found={found} />;
}

function FacetGroup({ facet, onlyIfSeveral = false }: { facet: Facet; onlyIfSeveral?: boolean }) {
  const [all, setAll] = useState(false);
  const { filters } = options.value;
  const chosen = chosenOf(filters, facet);
  const { none: refused = [] } = conditionOf(filters, facet);
  const values = valuesOf(facet);
  if (values.length === 0 || (onlyIfSeveral && values.length < 2)) return null;
  const shown = all
    ? values
    : values.filter(({ value }, index) => index < SHOWN || chosen.includes(value) || refused.includes(value));
  const toggle = (value: string) => {
    const others = chosen.filter((one) => one !== value);
    return change(withValues(filters, facet, others.length < chosen.length ? others : [...chosen, value]));
  };
  return (
    <fieldset class="facet">
      <legend dir="auto">{fieldName(facet)}</legend>
      {shown.map(({ value, count }) => (
        <Choice
          key={value}
          name={valueName(facet, value)}
          count={count}
          not={t("filters.not", { value: valueName(facet, value) })}
          isChosen={chosen.includes(value)}
          isRefused={refused.includes(value)}
          onChoose={() => void toggle(value)}
          onRefuse={() => void change(toggleRefused(filters, facet, value))}
        />
      ))}
      {values.length > SHOWN && (
        <button type="button" class="text-button" aria-expanded={all} onClick={() => setAll(!all)}>
          {all ? t("filters.fewer") : t("filters.all", { count: values.length })}
        </button>
      )}
      {facet !== "label" && <Unknown field={facet} />}
    </fieldset>
  );
}

function Advanced() {
  const { mode, metric, group } = options.value;
  const grouped = !group || answer.value?.matches.some(({ product = [] }) => product.length > 0);
  return (
    <details class="advanced">
      <summary>
        <span>{t("filters.advanced")}</span>
        <Icon name="chevron" size={18} />
      </summary>
      <div class="segmented" role="radiogroup" aria-label={t("filters.how")}>
        {(["fast", "exact"] as const).map((one) => (
          <label key={one}>
            <input
              type="radio"
              name="mode"
              checked={mode === one}
              disabled={metric !== null}
              onChange={() => void changeOptions({ mode: one })}
            />
            <span>{t(`mode.${one}`)}</span>
          </label>
        ))}
      </div>
      <p class="hint">
        {t(metric ? "filters.metric.hint" : mode === "exact" ? "filters.exact.hint" : "filters.fast.hint")}
      </p>
      <Variety />
      {grouped && (
        <label class="check">
          <input type="checkbox" checked={group} onChange={() => void changeOptions({ group: !group })} />
          <span class="check-name">{t("filters.group")}</span>
        </label>
      )}
      {(owner.value || metric) && (
        <label class="metric">
          <span>{t("filters.metric")}</span>
          <select
            value={metric ?? ""}
            onChange={(event) => void changeOptions({ metric: event.currentTarget.value || null })}
          >
            <option value="">{t("filters.metric.none")}</option>
            {METRICS.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </label>
      )}
    </details>
  );
}

/** Among the nearest, how much less of the same is wanted; an order of another kind leaves nothing to choose. */
function Variety() {
  const { sort, variety } = options.value;
  if (sort !== "likeness" || askedAs.value === "browse") return null;
  return (
    <label class="metric variety">
      <span>{t("filters.variety")}</span>
      <input
        type="range"
        min={0}
        max={1}
        step={0.1}
        value={variety}
        aria-valuetext={formatShare(variety)}
        onChange={(event) => void changeOptions({ variety: Number(event.currentTarget.value) })}
      />
    </label>
  );
}
