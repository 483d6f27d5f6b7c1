import type { Condition, Filters } from "./endpoint/contract";

/** Filters that accept several values, in the order in which they are shown. */
export const LISTS = ["collection", "source", "country", "currency", "label"] as const;
type Bound = number | string;

/** One condition that the visitor chose or excluded: a value, a range, or whether it is known. */
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

/** The filters with another condition on an attribute; an empty one is left out. */
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

/** Conditions on a list, a range or an attribute besides its values and ends. */
export const conditionOf = (filters: Filters, field: string): Condition =>
  filters.attributes?.[field.replace(/^@/, "")] ?? {};

/** The filters without any condition on a field. */
export function withoutField(filters: Filters, field: string): Filters {
  const rest = withAttribute(filters, field.replace(/^@/, ""), {});
  if (field === "price") return { ...rest, price: null };
  if (field === "date") return { ...rest, date_from: null, date_to: null };
  return isList(field) ? { ...rest, [field]: [] } : rest;
}

/** The filters with a value of a field excluded, or no longer excluded. An excluded value is not chosen. */
export function toggleRefused(filters: Filters, field: string, value: string): Filters {
  const name = field.replace(/^@/, "");
  const { any, none = [], ...rest } = conditionOf(filters, field);
  const refused = none.includes(value) ? less(none, value) : [...none, value];
  const kept = isList(field) ? { ...filters, [field]: less(filters[field], value) } : filters;
  return withAttribute(kept, name, { ...rest, any: less(any, value), none: refused });
}

/** The filters with only the items of which a field is unknown, only those of which it is known, or both (null). */
export function withMissing(filters: Filters, field: string, missing: boolean | null): Filters {
  const kept = missing ? withoutField(filters, field) : filters;
  return withAttribute(kept, field.replace(/^@/, ""), { ...conditionOf(kept, field), missing });
}

/** How many filters are set; a range counts once. */
export const countFilters = (filters: Filters): number => partsOf(filters).length;

const isList = (field: string): field is (typeof LISTS)[number] => LISTS.some((one) => one === field);
const less = (values: readonly string[] | undefined, value: string) => (values ?? []).filter((one) => one !== value);
export const isBound = (value: Bound | null | undefined): value is Bound =>
  typeof value === "number" || (typeof value === "string" && value !== "");
const bounds = (low: Bound | null | undefined, high: Bound | null | undefined) => ({
  low: low ?? undefined,
  high: high ?? undefined,
});
