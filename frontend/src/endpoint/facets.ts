import { computed, effect, signal } from "@preact/signals";
import { conditionOf, partsOf, withAttribute, withoutField } from "../filters";
import { answer, api, catalogueFacets, facets, options, phase, wordsAlone, wordsFacets } from "../state";
import type { Condition, FacetsAnswer, FacetValue, Filters } from "./contract";

/** A list of values to choose from: a facet, or an attribute after `@`. */
export type Facet = "collection" | "country" | "label" | "source" | `@${string}`;
/** What some items may have nothing of. */
export type Known = Exclude<Facet, "label"> | "price" | "date";

/** Values that an answer counts at most: what is behind them is not known. */
const COUNTED_MAX = 100;

/** For each filtered field, the counts under all other filters; asked for once per answer. */
const others = signal<Readonly<Record<string, FacetsAnswer>>>({});

const isAttribute = (facet: string): facet is `@${string}` => facet.startsWith("@");
const countedIn = (found: FacetsAnswer | null | undefined, facet: Facet): readonly FacetValue[] | undefined =>
  isAttribute(facet) ? found?.attributes?.[facet.slice(1)]?.values : found?.[facet as "collection"];

/** The values of a facet that somebody chose. */
export const chosenOf = (filters: Filters, facet: Facet): readonly string[] =>
  (isAttribute(facet) ? filters.attributes?.[facet.slice(1)]?.any : filters[facet as "collection"]) ?? [];

/** The filters with other values of a facet. What is chosen is known, and not refused. */
export function withValues(filters: Filters, facet: Facet, values: readonly string[]): Filters {
  const { none = [], missing, ...rest } = conditionOf(filters, facet);
  const condition: Condition = {
    ...rest,
    none: none.filter((one) => !values.includes(one)),
    missing: missing === false ? false : null,
  };
  const name = facet.replace(/^@/, "");
  if (isAttribute(facet)) return withAttribute(filters, name, { ...condition, any: [...values] });
  return withAttribute({ ...filters, [facet]: values }, name, condition);
}

/** Values of a facet with the number of items that choosing one of them would leave. */
export function valuesOf(facet: Facet): FacetValue[] {
  const all = countedIn(facets.value, facet) ?? [];
  const counted = countedIn(others.value[facet], facet) ?? countedIn(answer.value?.facets, facet) ?? all;
  const counts = new Map(counted.map(({ value, count }) => [value, count]));
  const { filters } = options.value;
  const named = [...chosenOf(filters, facet), ...(conditionOf(filters, facet).none ?? [])];
  const unlisted = named.filter((value) => !all.some((one) => one.value === value));
  const values = [...unlisted, ...all.map(({ value }) => value)];
  return values.map((value) => ({ value, count: counts.get(value) ?? 0 }));
}

/** How many items have nothing there, under all other filters; null where none of the catalogue is known to. */
export function missingOf(field: Known): number | null {
  const all = missingIn(facets.value, field);
  const isAsked = typeof conditionOf(options.value.filters, field).missing === "boolean";
  if (!all && !isAsked) return null;
  return missingIn(others.value[field] ?? answer.value?.facets, field) ?? all ?? 0;
}

function missingIn(found: FacetsAnswer | null | undefined, field: Known): number | null {
  if (!found) return null;
  if (isAttribute(field)) return found.attributes?.[field.slice(1)]?.missing ?? 0;
  const counted = field === "price" ? found.price_ranges : field === "date" ? found.date_ranges : found[field];
  if (!counted || counted.length === 0 || counted.length >= COUNTED_MAX) return null;
  return found.images - counted.reduce((sum, { count }) => sum + count, 0);
}

/** Items that pass all filters, where the answer counted them. */
export const itemsPassing = (): number | null =>
  phase.value === "failed" ? null : (answer.value?.facets?.images ?? null);

/** Keeps the counts true to the latest answer. */
export function followFacets(): void {
  // Those behind the first matches are of the same counts.
  const latest = computed(() => answer.value?.facets ?? null);
  effect(() => {
    const counted = latest.value;
    // The filters change before their answer comes, and that is counted.
    const { filters } = options.peek();
    const isDeclared = (field: string) => catalogueFacets.value?.attributes?.[field.slice(1)] !== undefined;
    const filtered = new Set(
      partsOf(filters).map(({ field }) => (isDeclared(field) ? field : field.replace(/^@/, ""))),
    );
    others.value = {};
    const words = counted ? wordsAlone.peek() : "";
    if (!words) wordsFacets.value = null;
    else if (filtered.size === 0) wordsFacets.value = counted;
    if (!counted || filtered.size === 0) return;
    const ask = async (field: string) => [field, await api.value.facets(withoutField(filters, field), words)] as const;
    void Promise.all([words ? api.value.facets({}, words) : null, ...[...filtered].map(ask)])
      .then(([said, ...found]) => {
        if (latest.value !== counted) return;
        wordsFacets.value = said;
        others.value = Object.fromEntries(found);
      })
      // Counts are a courtesy: without them the filters still work.
      .catch(() => undefined);
  });
}
