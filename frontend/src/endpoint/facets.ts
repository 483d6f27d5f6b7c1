import { effect, signal } from "@preact/signals";
import { partsOf, withAttribute } from "../filters";
import { answer, api, facets, options } from "../state";
import type { FacetsAnswer, FacetValue, Filters } from "./contract";

/** A list of values to choose from: a facet, or an attribute after `@`. */
export type Facet = "collection" | "country" | "label" | "source" | `@${string}`;

/** For each filtered facet, the counts under all other filters; asked for once per answer. */
const others = signal<Partial<Record<Facet, readonly FacetValue[]>>>({});

const isAttribute = (facet: Facet): facet is `@${string}` => facet.startsWith("@");
const countedIn = (found: FacetsAnswer | null | undefined, facet: Facet): readonly FacetValue[] | undefined =>
  isAttribute(facet) ? found?.attributes?.[facet.slice(1)]?.values : found?.[facet as "collection"];

/** The values of a facet that somebody chose. */
export const chosenOf = (filters: Filters, facet: Facet): readonly string[] =>
  (isAttribute(facet) ? filters.attributes?.[facet.slice(1)]?.any : filters[facet as "collection"]) ?? [];

/** The filters with other values of a facet. */
export function withValues(filters: Filters, facet: Facet, values: readonly string[]): Filters {
  if (!isAttribute(facet)) return { ...filters, [facet]: values };
  const name = facet.slice(1);
  return withAttribute(filters, name, { ...filters.attributes?.[name], any: [...values] });
}

/** Values of a facet with the number of items that choosing one of them would leave. */
export function valuesOf(facet: Facet): FacetValue[] {
  const all = countedIn(facets.value, facet) ?? [];
  const counted = others.value[facet] ?? countedIn(answer.value?.facets, facet) ?? all;
  const counts = new Map(counted.map(({ value, count }) => [value, count]));
  const unlisted = chosenOf(options.value.filters, facet).filter((value) => !all.some((one) => one.value === value));
  const values = [...unlisted, ...all.map(({ value }) => value)];
  return values.map((value) => ({ value, count: counts.get(value) ?? 0 }));
}

/** Items that pass all filters, where the answer counted them. */
export const itemsPassing = (): number | null => answer.value?.facets?.images ?? null;

/** Keeps the counts true to the latest answer. */
export function followFacets(): void {
  effect(() => {
    const { filters } = options.value;
    const filtered = new Set(partsOf(filters).flatMap(({ field, is }) => (is === undefined ? [] : [field as Facet])));
    others.value = {};
    if (!answer.value || filtered.size === 0) return;
    const counted = answer.value;
    const ask = async (facet: Facet) => [facet, await api.value.facets(withValues(filters, facet, []))] as const;
    void Promise.all([...filtered].map(ask))
      .then((found) => {
        if (answer.value !== counted) return;
        others.value = Object.fromEntries(found.map(([facet, one]) => [facet, countedIn(one, facet) ?? []]));
      })
      // Counts are a courtesy: without them the filters still work.
      .catch(() => undefined);
  });
}
