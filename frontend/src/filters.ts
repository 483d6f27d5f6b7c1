import type { Condition, Filters } from "./endpoint/contract";

/** Filters that take several values, in the order in which they are shown. */
export const LISTS = ["collection", "source", "country", "currency", "label"] as const;
type Bound = number | string;

/** One thing that somebody chose: a value, a range, or whether an attribute is known. */
export interface FilterPart {
  /** The name of a list, `price`, `date`, or an attribute after `@`. */
  field: string;
  is?: string;
  not?: string;
  low?: Bound | undefined;
  high?: Bound | undefined;
  missing?: boolean;
  /** The filters that stay without it. */
  without: Filters;
}

/** All that is chosen, one by one. */
export function partsOf(filters: Filters): FilterPart[] {
  const { price, date_from, date_to, attributes = {} } = filters;
  const lists = LISTS.flatMap((field) =>
    (filters[field] ?? []).map((is) => ({ field, is, without: { ...filters, [field]: less(filters[field], is) } })),
  );
  const ranges: FilterPart[] = [];
  if (isBound(price?.min) || isBound(price?.max)) {
    ranges.push({ field: "price", ...bounds(price?.min, price?.max), without: { ...filters, price: null } });
  }
  if (date_from || date_to) {
    const without = { ...filters, date_from: null, date_to: null };
    ranges.push({ field: "date", ...bounds(date_from, date_to), without });
  }
  return [...lists, ...ranges, ...Object.keys(attributes).flatMap((name) => attributeParts(filters, name))];
}

function attributeParts(filters: Filters, name: string): FilterPart[] {
  const field = `@${name}`;
  const condition = filters.attributes?.[name] ?? {};
  const changed = (change: Condition) => withAttribute(filters, name, { ...condition, ...change });
  const { any = [], none = [], min, max, missing } = condition;
  const parts: FilterPart[] = [
    ...any.map((is) => ({ field, is, without: changed({ any: less(any, is) }) })),
    ...none.map((not) => ({ field, not, without: changed({ none: less(none, not) }) })),
  ];
  if (isBound(min) || isBound(max))
    parts.push({ field, ...bounds(min, max), without: changed({ min: null, max: null }) });
  if (typeof missing === "boolean") parts.push({ field, missing, without: changed({ missing: null }) });
  return parts;
}

/** The filters with another condition on an attribute; one that asks for nothing is left out. */
export function withAttribute(filters: Filters, name: string, condition: Condition): Filters {
  const { any = [], none = [], min, max, missing } = condition;
  const kept: Condition = {
    ...(any.length > 0 && { any }),
    ...(none.length > 0 && { none }),
    ...(isBound(min) && { min }),
    ...(isBound(max) && { max }),
    ...(typeof missing === "boolean" && { missing }),
  };
  const { [name]: _, ...others } = filters.attributes ?? {};
  const attributes = Object.keys(kept).length > 0 ? { ...others, [name]: kept } : others;
  const { attributes: __, ...rest } = filters;
  return Object.keys(attributes).length > 0 ? { ...rest, attributes } : rest;
}

/** How many filters are set; a range counts once. */
export const countFilters = (filters: Filters): number => partsOf(filters).length;

const less = (values: readonly string[] | undefined, value: string) => (values ?? []).filter((one) => one !== value);
export const isBound = (value: Bound | null | undefined): value is Bound =>
  typeof value === "number" || (typeof value === "string" && value !== "");
const bounds = (low: Bound | null | undefined, high: Bound | null | undefined) => ({
  low: low ?? undefined,
  high: high ?? undefined,
});
