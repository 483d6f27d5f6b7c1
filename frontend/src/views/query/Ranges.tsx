import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { AttributeFacet, FacetsAnswer, Filters, RangeCount } from "../../endpoint/contract";
import { conditionOf, isBound, withAttribute, withMissing } from "../../filters";
import { changeOptions } from "../../search/search";
import { answer, facets, options } from "../../state";
import { fieldName, rangeName } from "../../words/filters";
import { coinBefore, dayBefore, formatCount } from "../../words/format";
import { t } from "../../words/messages";
import { Unknown } from "./Choice";

type Bound = number | string;
interface Ends {
  low: Bound | null;
  high: Bound | null;
}

/** Two fields for the ends of a range, and the ranges that the endpoint counted; a field that is left counts. */
function Range(props: {
  field: "price" | "date" | `@${string}`;
  type: "number" | "date";
  ends: Ends;
  /** The ends of what there is. */
  bounds: Ends;
  labels: { low: string; high: string };
  counted?: readonly RangeCount[] | undefined;
  onChange: (ends: Ends) => void;
  children?: ComponentChildren;
}) {
  const { field, type, ends, bounds, labels, counted = [], onChange } = props;
  const [low, setLow] = useState("");
  const [high, setHigh] = useState("");
  useEffect(() => {
    setLow(String(ends.low ?? ""));
    setHigh(String(ends.high ?? ""));
  }, [ends.low, ends.high]);
  const read = (text: string): Bound | null => {
    if (type === "date") return text || null;
    return text.trim() === "" || !Number.isFinite(Number(text)) ? null : Number(text);
  };
  const apply = () => {
    const next = { low: read(low), high: read(high) };
    if (next.low !== ends.low || next.high !== ends.high) onChange(next);
  };
  const input = (label: string, hint: string, value: string, set: (value: string) => void, bound: Bound | null) => (
    <label class="price-field">
      <span class="visually-hidden">{label}</span>
      <input
        type={type}
        step={type === "number" ? "any" : undefined}
        inputMode={type === "number" ? "decimal" : undefined}
        value={value}
        placeholder={typeof bound === "number" ? String(Math.round(bound)) : hint}
        onInput={(event) => set(event.currentTarget.value)}
        onBlur={apply}
        onKeyDown={(event) => event.key === "Enter" && apply()}
      />
    </label>
  );
  const isChosen = ({ min, max }: RangeCount) => ends.low === min && ends.high === max;
  const crossed = isBound(ends.low) && isBound(ends.high) && ends.low > ends.high;
  return (
    <fieldset class="facet">
      <legend dir="auto">{fieldName(field)}</legend>
      <div class={type === "date" ? "price dates" : "price"}>
        {input(labels.low, t("filters.from"), low, setLow, bounds.low)}
        <span aria-hidden="true">–</span>
        {input(labels.high, t("filters.to"), high, setHigh, bounds.high)}
        {props.children}
      </div>
      {counted
        .filter(({ count }) => count > 0)
        .map((one) => (
          <label key={one.min} class="check">
            <input
              type="checkbox"
              checked={isChosen(one)}
              onChange={() => onChange(isChosen(one) ? { low: null, high: null } : { low: one.min, high: one.max })}
            />
            <span class="check-name">{rangeName(field, one.min, one.max)}</span>
            <span class="check-count">{formatCount(one.count)}</span>
          </label>
        ))}
      <Unknown field={field} />
      {crossed && <p class="hint">{t(field === "price" ? "filters.crossed" : "filters.crossed.range")}</p>}
    </fieldset>
  );
}

/**
 * Counted ranges as a filter takes them, which holds for both of its ends: each but the last ends before the next begins.
 *
 * @param before What comes before an end.
 */
const apart = (counted: readonly RangeCount[], before: (end: Bound) => Bound): RangeCount[] =>
  counted.map((one, place) => {
    const max = place < counted.length - 1 ? before(one.max) : one.max;
    return max >= one.min ? { ...one, max } : one;
  });

export function Price() {
  const { filters } = options.value;
  const { price, currency = [] } = filters;
  // Bounds of one currency mean something; of several together they do not.
  const all = facets.value;
  const mixed = (all?.currency?.length ?? 0) > 1 && currency.length === 0;
  const within: FacetsAnswer | null = currency.length > 0 ? (answer.value?.facets ?? null) : all;
  const currencies = (all?.currency ?? []).map(({ value }) => value);
  const [code = null] = currencies;
  if (typeof all?.price_max !== "number" && currencies.length === 0) return null;
  const change = ({ low, high }: Ends) => {
    const range = { ...(low !== null && { min: Number(low) }), ...(high !== null && { max: Number(high) }) };
    void changeOptions({
      filters: { ...known(filters, "price"), price: low === null && high === null ? null : range },
    });
  };
  return (
    <>
      <Range
        field="price"
        type="number"
        ends={{ low: price?.min ?? null, high: price?.max ?? null }}
        bounds={mixed ? NO_ENDS : { low: within?.price_min ?? null, high: within?.price_max ?? null }}
        labels={{ low: t("filters.price.lowest"), high: t("filters.price.highest") }}
        counted={mixed ? [] : apart(within?.price_ranges ?? [], (end) => coinBefore(Number(end), currency[0] ?? code))}
        onChange={change}
      >
        {currencies.length > 1 ? (
          <select
            aria-label={t("filters.currency")}
            value={currency[0] ?? ""}
            onChange={({ currentTarget: { value } }) =>
              void changeOptions({ filters: { ...filters, currency: value ? [value] : [] } })
            }
          >
            <option value="">{t("filters.any")}</option>
            {currencies.map((one) => (
              <option key={one}>{one}</option>
            ))}
          </select>
        ) : (
          <span class="muted">{code}</span>
        )}
      </Range>
      {mixed && price && <p class="hint">{t("filters.mixed")}</p>}
    </>
  );
}

/** What lies in a range is known. */
const known = (filters: Filters, field: string): Filters =>
  conditionOf(filters, field).missing ? withMissing(filters, field, null) : filters;

const NO_ENDS: Ends = { low: null, high: null };

/** When an item was put into the catalogue, or what its source says of that. */
export function Dates() {
  const { filters } = options.value;
  const counted = apart(facets.value?.date_ranges ?? [], (end) => dayBefore(String(end)));
  if (counted.length === 0 && !filters.date_from && !filters.date_to) return null;
  return (
    <Range
      field="date"
      type="date"
      ends={{ low: filters.date_from ?? null, high: filters.date_to ?? null }}
      bounds={NO_ENDS}
      labels={{ low: t("filters.date.from"), high: t("filters.date.to") }}
      counted={counted}
      onChange={({ low, high }) =>
        void changeOptions({
          filters: {
            ...known(filters, "date"),
            date_from: low === null ? null : String(low),
            date_to: high === null ? null : String(high),
          },
        })
      }
    />
  );
}

/** A number or a date that the owner declared. */
export function AttributeRange({ name, found }: { name: string; found: AttributeFacet }) {
  const { filters } = options.value;
  const condition = filters.attributes?.[name] ?? {};
  const isDate = found.type === "date";
  const label = fieldName(`@${name}`);
  return (
    <Range
      field={`@${name}`}
      type={isDate ? "date" : "number"}
      ends={{ low: condition.min ?? null, high: condition.max ?? null }}
      bounds={isDate ? NO_ENDS : { low: found.min ?? null, high: found.max ?? null }}
      labels={{
        low: t(isDate ? "filters.earliest" : "filters.lowest", { name: label }),
        high: t(isDate ? "filters.latest" : "filters.highest", { name: label }),
      }}
      onChange={({ low, high }) =>
        void changeOptions({
          filters: withAttribute(filters, name, { ...conditionOf(known(filters, name), name), min: low, max: high }),
        })
      }
    />
  );
}
