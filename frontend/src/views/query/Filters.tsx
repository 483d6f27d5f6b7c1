import { useEffect, useState } from "preact/hooks";
import { countFilters } from "../../address/link";
import type { Filters as FilterSet } from "../../endpoint/contract";
import { type Facet, itemsPassing, valuesOf } from "../../endpoint/facets";
import { owner } from "../../owner";
import { changeOptions } from "../../search";
import { answer, facets, isBusy, options } from "../../state";
import { formatCount, formatCountry, sentenceCase } from "../../words/format";
import { labelName } from "../../words/labels";
import { Icon } from "../elements/icons";

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

const change = (filters: FilterSet) => changeOptions({ filters: { ...options.value.filters, ...filters } });

/** What a match must be, and how to look for it. */
export function Filters() {
  const [open, setOpen] = useState(() => matchMedia("(min-width: 60rem)").matches);
  const count = countFilters(options.value.filters);
  const passing = itemsPassing();
  return (
    <details class="panel filters" open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary class="panel-title filters-head">
        <Icon name="filter" size={18} />
        <span>Filters{count > 0 && <span class="badge">{count}</span>}</span>
        <Icon name="chevron" size={18} />
      </summary>
      <div class="filter-body">
        {count > 0 && (
          <p class="filter-state">
            <span class="muted">{passing === null ? "" : `${formatCount(passing)} items pass`}</span>
            <button type="button" class="text-button" onClick={() => void changeOptions({ filters: {} })}>
              Clear all
            </button>
          </p>
        )}
        <FacetGroup facet="collection" title="Collection" name={sentenceCase} />
        <Price />
        <FacetGroup facet="country" title="Country" name={formatCountry} />
        <FacetGroup facet="label" title="Seems to show" name={labelName} />
        <FacetGroup facet="source" title="Source" name={(value) => value} onlyIfSeveral />
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
      Show {formatCount(count)} {count === 1 ? "result" : "results"}
    </button>
  );
}

function FacetGroup(props: { facet: Facet; title: string; name: (value: string) => string; onlyIfSeveral?: boolean }) {
  const [all, setAll] = useState(false);
  const { facet, title, name } = props;
  const chosen = options.value.filters[facet] ?? [];
  const values = valuesOf(facet);
  if (values.length === 0 || (props.onlyIfSeveral && values.length < 2)) return null;
  const shown = all ? values : values.filter(({ value }, index) => index < SHOWN || chosen.includes(value));
  const toggle = (value: string) =>
    change({ [facet]: chosen.includes(value) ? chosen.filter((one) => one !== value) : [...chosen, value] });
  return (
    <fieldset class="facet">
      <legend>{title}</legend>
      {shown.map(({ value, count }) => (
        <label key={value} class={count === 0 ? "check check-empty" : "check"}>
          <input type="checkbox" checked={chosen.includes(value)} onChange={() => void toggle(value)} />
          <span class="check-name">{name(value)}</span>
          <span class="check-count">{formatCount(count)}</span>
        </label>
      ))}
      {values.length > SHOWN && (
        <button type="button" class="text-button" aria-expanded={all} onClick={() => setAll(!all)}>
          {all ? "Show fewer" : `Show all ${values.length}`}
        </button>
      )}
    </fieldset>
  );
}

function Price() {
  const { price, currency = [] } = options.value.filters;
  // Bounds of one currency mean something; of several together they do not.
  const all = facets.value;
  const mixed = (all?.currency?.length ?? 0) > 1 && currency.length === 0;
  const bounds = currency.length > 0 ? (answer.value?.facets ?? null) : all;
  const [min, setMin] = useState("");
  const [max, setMax] = useState("");
  useEffect(() => {
    setMin(price?.min?.toString() ?? "");
    setMax(price?.max?.toString() ?? "");
  }, [price?.min, price?.max]);
  const currencies = (all?.currency ?? []).map(({ value }) => value);
  if (typeof all?.price_max !== "number" && currencies.length === 0) return null;
  const apply = () => {
    const [low, high] = [read(min), read(max)];
    if (low === (price?.min ?? null) && high === (price?.max ?? null)) return;
    const range = { ...(low !== null && { min: low }), ...(high !== null && { max: high }) };
    void change({ price: low === null && high === null ? null : range });
  };
  const field = (label: string, value: string, set: (value: string) => void, bound: number | null | undefined) => (
    <label class="price-field">
      <span class="visually-hidden">{label} price</span>
      <input
        type="number"
        inputMode="decimal"
        min="0"
        step="any"
        value={value}
        placeholder={
          typeof bound === "number" && !mixed ? String(Math.round(bound)) : label === "Lowest" ? "From" : "To"
        }
        onInput={(event) => set(event.currentTarget.value)}
        onBlur={apply}
        onKeyDown={(event) => event.key === "Enter" && apply()}
      />
    </label>
  );
  return (
    <fieldset class="facet">
      <legend>Price</legend>
      <div class="price">
        {field("Lowest", min, setMin, bounds?.price_min)}
        <span aria-hidden="true">–</span>
        {field("Highest", max, setMax, bounds?.price_max)}
        {currencies.length > 1 ? (
          <select
            aria-label="Currency"
            value={currency[0] ?? ""}
            onChange={(event) =>
              void change({ currency: event.currentTarget.value ? [event.currentTarget.value] : [] })
            }
          >
            <option value="">Any</option>
            {currencies.map((code) => (
              <option key={code}>{code}</option>
            ))}
          </select>
        ) : (
          <span class="muted">{currencies[0]}</span>
        )}
      </div>
      {typeof price?.min === "number" && typeof price.max === "number" && price.min > price.max && (
        <p class="hint">The lowest price is above the highest, so nothing fits.</p>
      )}
      {mixed && price && <p class="hint">Numbers of different currencies are compared as they stand. Choose one.</p>}
    </fieldset>
  );
}

function Advanced() {
  const { mode, metric } = options.value;
  return (
    <details class="advanced">
      <summary>
        <span>Advanced</span>
        <Icon name="chevron" size={18} />
      </summary>
      <div class="segmented" role="radiogroup" aria-label="How to search">
        {(["fast", "exact"] as const).map((one) => (
          <label key={one}>
            <input
              type="radio"
              name="mode"
              checked={mode === one}
              disabled={metric !== null}
              onChange={() => void changeOptions({ mode: one })}
            />
            <span>{sentenceCase(one)}</span>
          </label>
        ))}
      </div>
      <p class="hint">
        {metric
          ? "A named metric compares with every full vector."
          : mode === "exact"
            ? "Compares with every vector in the catalogue."
            : "Looks through compact codes first, then compares the best with care."}
      </p>
      {(owner.value || metric) && (
        <label class="metric">
          <span>Metric</span>
          <select
            value={metric ?? ""}
            onChange={(event) => void changeOptions({ metric: event.currentTarget.value || null })}
          >
            <option value="">As indexed</option>
            {METRICS.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </label>
      )}
    </details>
  );
}

const read = (text: string): number | null =>
  text.trim() === "" || !Number.isFinite(Number(text)) ? null : Number(text);
