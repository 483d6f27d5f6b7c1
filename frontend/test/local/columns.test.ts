import { expect, test } from "vitest";
import type { Container } from "../../src/bytes/container";
import { meets, numberOf } from "../../src/local/format/attributes";
import { Columns } from "../../src/local/format/columns";
import { priceRanges } from "../../src/local/search/facetCounts";

/** Three items: what the words and the attribute `constructor` of the first say, every object of JavaScript has, too. */
const stored: Record<string, unknown> = {
  names: { collection: [], source: [], country: [], currency: [], label: [], word: ["constructor", "hat"] },
  attributes: [["constructor", "keyword", ["Lotus"]]],
  attribute_0: Uint16Array.of(1, 0, 0),
  price: Float32Array.of(0.7, 0.8, Number.NaN),
  date: new Int32Array(3),
  label_starts: new Uint32Array(4),
  label_codes: new Uint16Array(),
  word_starts: Uint32Array.of(0, 1, 2, 2),
  word_codes: Uint16Array.of(0, 1),
};
const read = (name: string) => stored[name] ?? new Uint16Array(3);
const container = { json: read, tensor: read, has: (name: string) => name in stored } as unknown as Container;
const columns = new Columns(container, 3);

test("a word that every object has counts for nothing, and costs the item nothing", () => {
  expect([...columns.wordSums({ hat: 0.5 })]).toEqual([0, 0.5, 0]);
});

test("an attribute that every object has is filtered by", () => {
  const attributes = { constructor: { any: ["Lotus"] } };
  expect([0, 1, 2].map(columns.passes({ attributes }, { constructor: "keyword" as const }))).toEqual([
    true,
    false,
    false,
  ]);
  expect(() => columns.passes({ attributes }, {})).toThrow("'constructor' is not an attribute of this index");
});

test("a flag that every object has is refused", () => {
  const flags = { type: "flag", values: [0, 1, 2], names: ["false", "true"] } as const;
  expect(() => meets(flags, "sold", { any: ["constructor"] })).toThrow('The condition on sold names "constructor"');
});

test("a range counts what a filter by its ends finds", () => {
  // In single precision 0.7 is a little less than 0.7.
  const prices = Float32Array.of(0.5, 0.6, 0.7, 0.7, 0.8, 0.9, 1, 1.1, 1.2);
  const column = { type: "number", values: prices, names: [] } as const;
  const ranges = priceRanges(prices, 6);
  const found = ranges.map(({ min, max }, at) => {
    const isLast = at === ranges.length - 1;
    const [low, high] = [meets(column, "price", { min }), meets(column, "price", isLast ? { max } : { min: max })];
    return [...prices.keys()].filter((row) => low(row) && high(row) === isLast).length;
  });
  expect(ranges.map(({ count }) => count)).toEqual(found);
});

test.each([
  ["12,5 kg", 12.5],
  ["١٢ كجم", 12],
  ["१२.५", 12.5],
  ["๓๐", 30],
  ["１.２３４,５", 1234.5],
  ["𝟗", 9],
  ["½", null],
])("the number of %s is %s, as Python reads it", (text, number) => {
  expect(numberOf(text)).toBe(number);
});
