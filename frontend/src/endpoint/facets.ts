import { effect, signal } from "@preact/signals";
import { answer, api, facets, options } from "../state";
import type { FacetsAnswer, FacetValue, Filters } from "./contract";

export type Facet = "collection" | "country" | "label" | "source";

/** For each filtered facet, the counts under all other filters; asked for once per answer. */
const others = signal<Partial<Record<Facet, FacetValue[]>>>({});

/** Values of a facet with the number of items that choosing one of them would leave. */
export function valuesOf(facet: Facet): FacetValue[] {
  const all = facets.value?.[facet] ?? [];
  const chosen = options.value.filters[facet] ?? [];
  const counted = others.value[facet] ?? answer.value?.facets?.[facet] ?? all;
  const counts = new Map(counted.map(({ value, count }) => [value, count]));
  const listed = all.map(({ value }) => ({ value, count: counts.get(value) ?? 0 }));
  const unlisted = chosen.filter((value) => !all.some((one) => one.value === value));
  return [...unlisted.map((value) => ({ value, count: counts.get(value) ?? 0 })), ...listed];
}

/** Items that pass all filters, where the answer counted them. */
export const itemsPassing = (): number | null => answer.value?.facets?.images ?? null;

/** Keeps the counts true to the latest answer. */
export function followFacets(): void {
  effect(() => {
    const { filters } = options.value;
    const filtered = (["collection", "country", "label", "source"] as const).filter((name) => filters[name]?.length);
    others.value = {};
    if (!answer.value || filtered.length === 0) return;
    const counted = answer.value;
    const without = (name: Facet): Filters => ({ ...filters, [name]: [] });
    void Promise.all(filtered.map((name) => api.value.facets(without(name)).then((found) => [name, found] as const)))
      .then((found: (readonly [Facet, FacetsAnswer])[]) => {
        if (answer.value !== counted) return;
        others.value = Object.fromEntries(found.map(([name, one]) => [name, one[name] ?? []]));
      })
      // Counts are a courtesy: without them the filters still work.
      .catch(() => undefined);
  });
}
