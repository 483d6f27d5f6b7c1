/** What a visitor has to know with an answer, as servers write it (`index/search/searcher.py`, `search/service.py`). */
import type { Notice } from "../endpoint/contract";
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
): Notice[] {
  const asked = Object.keys(request.filters?.attributes ?? {});
  const partly = asked.flatMap((name) => attributes.filter((one) => one.name === name && one.items < index.images));
  return [
    ...(isLost ? [LOST] : []),
    ...(after && after.generation !== id ? [MERGED] : []),
    ...partly.map(({ name, items }): Notice => {
      const text =
        `${name} is known of ${items} of ${index.images} items: the others were indexed before it was ` +
        "declared, and say nothing until they are crawled or pushed again.";
      return { code: "attribute_partly_known", text, values: { name, known: items, images: index.images } };
    }),
    ...mixedPrices(rows, request),
  ];
}

const LOST: Notice = {
  code: "items_lost",
  text: "Similar pictures are indexed, but the documents of their items are lost.",
};
const MERGED: Notice = {
  code: "merged",
  text: "The index was merged since the previous page: a match between the two may be missing or appear twice.",
};

function mixedPrices(rows: Rows, { sort, filters }: Sought): Notice[] {
  const { price, ...others } = filters?.attributes ?? {};
  const isBound = [filters?.price, price].some((one) => (one?.min ?? one?.max ?? null) !== null);
  if (!isBound && sort !== "price_up" && sort !== "price_down") return [];
  const found = rows.currencies({ ...filters, price: null, attributes: others });
  if (found.length <= 1) return [];
  const currencies = found.join(", ");
  const text = `Prices in ${currencies} are compared as bare numbers: filter by one currency.`;
  return [{ code: "currencies", text, values: { currencies } }];
}
