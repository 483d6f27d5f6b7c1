/** Sentences that a visitor has to know with an answer, as servers write them. */
import type { Manifest } from "./format/manifest";
import type { Rows } from "./format/rows";
import type { Sought } from "./query";
import type { Cursor } from "./search/order";

/**
 * @param after Where the request continues, if it does.
 * @param isLost Whether there are hits whose item is no longer known.
 */
export function noticesOf(
  { attributes, index, id }: Manifest,
  rows: Rows,
  request: Sought,
  after: Cursor | null,
  isLost: boolean,
): string {
  const asked = Object.keys(request.filters?.attributes ?? {});
  const partly = asked.flatMap((name) => attributes.filter((one) => one.name === name && one.items < index.images));
  return [
    ...(isLost ? ["Similar pictures are indexed, but the documents of their items are lost."] : []),
    ...(after && after.generation !== id
      ? ["The index was merged since the previous page: a match between the two may be missing or appear twice."]
      : []),
    ...partly.map(
      ({ name, items }) =>
        `${name} is known of ${items} of ${index.images} items: the others were indexed before it was ` +
        "declared, and say nothing until they are crawled or pushed again.",
    ),
    ...mixedPrices(rows, request),
  ].join(" ");
}

function mixedPrices(rows: Rows, { sort, filters }: Sought): string[] {
  const { price, ...others } = filters?.attributes ?? {};
  const isBound = [filters?.price, price].some((one) => (one?.min ?? one?.max ?? null) !== null);
  if (!isBound && sort !== "price_up" && sort !== "price_down") return [];
  const found = rows.currencies({ ...filters, price: null, attributes: others });
  return found.length > 1
    ? [`Prices in ${found.join(", ")} are compared as bare numbers: filter by one currency.`]
    : [];
}
