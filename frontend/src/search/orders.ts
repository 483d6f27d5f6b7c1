import { SORTS } from "../address/link";
import type { FacetsAnswer, Sort } from "../endpoint/contract";

/** The orders for which the catalogue (by its counts) and the question have what is needed. */
export function ordersFor(found: FacetsAnswer | null, hasPicture: boolean): Sort[] {
  const isPriced = typeof found?.price_max === "number";
  const isDated = (found?.date_ranges ?? []).length > 0;
  return SORTS.filter((sort) => {
    if (sort.startsWith("price")) return isPriced;
    if (sort === "newest" || sort === "oldest") return isDated;
    return sort !== "most_changed" || hasPicture;
  });
}
