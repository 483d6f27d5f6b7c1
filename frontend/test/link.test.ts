import { describe, expect, it } from "vitest";
import { DEFAULT_OPTIONS, fromUrlSafe, type LinkState, readLink, toUrlSafe, writeLink } from "../src/address/link";
import { countFilters, partsOf } from "../src/filters";
import { partName } from "../src/words/filters";

const plain: LinkState = {
  query: { item: "a".repeat(32) },
  ...DEFAULT_OPTIONS,
  generation: null,
  model: null,
};

const full: LinkState = {
  query: { vector: "+/8AAA==" },
  filters: {
    collection: ["Hand tools", "B&B=50%"],
    country: ["PT"],
    currency: ["EUR"],
    label: ["café"],
    source: ["demo-shop"],
    price: { min: 2.5, max: 40 },
    date_from: "2026-01-01",
    date_to: "2026-02-01",
    attributes: {
      colour: { any: ["red & white", "blue"], none: ["green"] },
      "size.eu": { min: 36, max: 42.5 },
      made: { min: "2025-06-01" },
      vegan: { missing: false },
    },
  },
  mode: "exact",
  metric: "cosine",
  k: 36,
  text: "100 % wool, “grün” + 羊毛",
  examples: [
    { item: "b".repeat(32), weight: 1 },
    { item: "c".repeat(32), weight: -0.5 },
    { vector: "/+8AAA==", weight: 1 },
    { vector: "AAAA", weight: -0.5 },
  ],
  sort: "price_up",
  variety: 0.3,
  group: false,
  generation: 7,
  model: "nsfwjs-1d6df2568ae2",
};

const words: LinkState = { ...plain, query: null, text: "green apple" };
const browsed: LinkState = { ...plain, query: null, filters: { collection: ["Fruit"] } };

describe("a link", () => {
  it.each([plain, full, words, browsed, { ...full, query: null }])("is read as it was written", (state) => {
    expect(readLink(`#${writeLink(state)}`)).toEqual(state);
  });

  it("says nothing about what is at its default", () => {
    expect(writeLink(plain)).toBe(`item=${"a".repeat(32)}`);
  });

  it("keeps the vector free of signs that an address escapes", () => {
    expect(writeLink({ ...plain, query: { vector: "+/8AAA==" } })).toBe("q=-_8AAA");
  });

  it.each([
    "",
    "#",
    "#main",
    "#mode=exact",
    "#q=",
    "#q=a b",
    "#q=<script>",
    "#text=",
    "#sort=newest",
    "#unlike=a",
    "#unlike.q=AAAA",
    "#like.q=a b",
    "#variety=0.5",
  ])("of %j asks for nothing", (hash) => {
    expect(readLink(hash)).toBeNull();
  });

  it("leaves out parts that make no sense", () => {
    const state = readLink("#item=x&k=9999&mode=slow&price=a..b&generation=z&sort=luck&any.=a&min.size=");
    expect(state).toEqual({ ...plain, query: { item: "x" } });
  });

  it("changes nothing of the page by the names in it", () => {
    const filters = readLink("#any.__proto__=a&any.constructor=b")?.filters ?? {};
    expect([({} as { any?: unknown }).any, (Object as { any?: unknown }).any]).toEqual([undefined, undefined]);
    expect(partsOf(filters).map(partName)).toEqual(["Proto: a", "Constructor: b"]);
  });

  it.each([
    ["10..", { min: 10 }],
    ["..5", { max: 5 }],
    ["0..5", { min: 0, max: 5 }],
  ])("reads the price range %s", (text, price) => {
    expect(readLink(`#item=x&price=${text}`)?.filters.price).toEqual(price);
  });
});

describe("URL-safe base64", () => {
  it.each(["", "AA==", "AAA=", "AAAA", "+/+/+w=="])("gives %j back", (text) => {
    expect(fromUrlSafe(toUrlSafe(text))).toBe(text);
  });
});

it("counts each value and each range as one filter", () => {
  expect(countFilters(full.filters)).toBe(14);
  expect(countFilters({ price: { min: null }, collection: [] })).toBe(0);
});

it("takes each part of the filters away and leaves the others", () => {
  for (const { without } of partsOf(full.filters)) expect(countFilters(without)).toBe(13);
});

it("counts the characters of words as the field does", () => {
  const text = `red ${"🦊".repeat(396)}`;
  expect(readLink(writeLink({ ...plain, text }))?.text).toBe(text);
  expect(readLink(writeLink({ ...plain, text: `${text}🦊` }))?.text).toBe(text);
});
