import { expect, test } from "vitest";
import type { Container } from "../../src/bytes/container";
import { byCodePoints, meets, numberOf } from "../../src/local/format/attributes";
import { Columns } from "../../src/local/format/columns";
import { countFacets, priceRanges } from "../../src/local/search/facetCounts";

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

test("a flag is read as Python reads it", () => {
  const flags = { type: "flag", values: [0, 1, 2], names: ["false", "true"] } as const;
  expect([0, 1, 2].map(meets(flags, "sold", { any: ["\u0085 Yes"] }))).toEqual([false, false, true]);
  expect(() => meets(flags, "sold", { any: ["\ufeffyes"] })).toThrow("The condition on sold names");
});

test("texts stand in Python's order: a wide letter before an emoji, which UTF-16 writes with lower numbers", () => {
  const texts = ["😀", "Ａ", "\ue000", "a😀", "a", "aＡ", "a"];
  expect(texts.sort(byCodePoints)).toEqual(["a", "a", "aＡ", "a😀", "\ue000", "Ａ", "😀"]);
  const known = {
    ...stored,
    names: { collection: ["Ａ", "😀"], currency: ["Ａ", "😀"] },
    label_codes: new Uint16Array(),
  };
  const coded = { ...known, collection: Uint16Array.of(2, 1, 0) } as Record<string, unknown>;
  const get = (name: string) => coded[name] ?? new Uint16Array(3);
  const both = { json: get, tensor: get, has: () => false } as unknown as Container;
  const limits = { values_max: 1, price_ranges: 6, date_ranges: 12 };
  const { collection } = countFacets([{ columns: new Columns(both, 3), rows: [0, 1, 2] }], {}, limits);
  expect(collection).toEqual([{ value: "Ａ", count: 1 }]);
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
  ["0,750 kg", 0.75],
  ["-0,125", -0.125],
  ["٠,١٢٥", 0.125],
  ["1,250 g", 1250],
  ["١٢ كجم", 12],
  ["१२.५", 12.5],
  ["๓๐", 30],
  ["１.２３４,５", 1234.5],
  ["𝟗", 9],
  ["½", null],
  ["\u0085 5\u0085kg", 5],
  ["\ufeff5", null],
])("the number of %s is %s, as Python reads it", (text, number) => {
  expect(numberOf(text)).toBe(number);
});
