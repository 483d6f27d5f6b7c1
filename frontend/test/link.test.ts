import { describe, expect, it } from "vitest";
import { countFilters, fromUrlSafe, type LinkState, readLink, toUrlSafe, writeLink } from "../src/address/link";

const plain: LinkState = {
  query: { item: "a".repeat(32) },
  filters: {},
  mode: "fast",
  metric: null,
  k: 12,
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
  },
  mode: "exact",
  metric: "cosine",
  k: 36,
  generation: 7,
  model: "nsfwjs-1d6df2568ae2",
};

describe("a link", () => {
  it.each([plain, full])("is read as it was written", (state) => {
    expect(readLink(`#${writeLink(state)}`)).toEqual(state);
  });

  it("says nothing about what is at its default", () => {
    expect(writeLink(plain)).toBe(`item=${"a".repeat(32)}`);
  });

  it("keeps the vector free of signs that an address escapes", () => {
    expect(writeLink({ ...plain, query: { vector: "+/8AAA==" } })).toBe("q=-_8AAA");
  });

  it.each(["", "#", "#main", "#mode=exact", "#q=", "#q=a b", "#q=<script>"])("of %j asks for nothing", (hash) => {
    expect(readLink(hash)).toBeNull();
  });

  it("leaves out parts that make no sense", () => {
    const state = readLink("#item=x&k=9999&mode=slow&price=a..b&generation=z");
    expect(state).toEqual({ ...plain, query: { item: "x" } });
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
  expect(countFilters(full.filters)).toBe(8);
  expect(countFilters({ price: { min: null }, collection: [] })).toBe(0);
});
