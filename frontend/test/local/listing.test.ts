import { expect, test } from "vitest";
import type { Rows } from "../../src/local/format/rows";
import { type Question, Searcher } from "../../src/local/search/searcher";

/** How near each row is, its product and its picture: b is of a's product, and c shows b's picture. */
const ROWS = { a: [0.99, 1, 1], b: [0.97, 1, 2], d: [0.96, 0, 3], c: [0.95, 0, 2] } as const;
const names = Object.keys(ROWS) as (keyof typeof ROWS)[];
const at = (row: number) => ROWS[names[row] as keyof typeof ROWS];
const rows = {
  count: names.length,
  manifest: { id: "export", has_products: true, products: 3 },
  products: names.map((_, row) => at(row)[1]),
  vectors: { all: () => Float32Array.from(names, (_, row) => at(row)[0]), unit: () => Float32Array.of(1) },
  allowed: () => null,
  bitsApart: (a: number, b: number) => (at(a)[2] === at(b)[2] ? 0 : 128),
  compareIds: (a: number, b: number) => a - b,
  groupWith: () => [],
  id: (row: number) => `${names[row]}`.repeat(32),
} as unknown as Rows;
const constants = {
  search: { nearest: 64, rerank: 400, widenings: 6, duplicates_max: 50 },
  verdict: { same_bits: 24, same_similarity: 0.9 },
} as ConstructorParameters<typeof Searcher>[1];

test.each([1, 2, 3, 9])("copies among products are the same matches on pages of %i", (k) => {
  const searcher = new Searcher(rows, constants);
  const unit = Float32Array.of(1);
  const found: string[] = [];
  let after: Question["order"]["after"] = null;
  do {
    const { hits, next } = searcher.search({
      query: { full: unit, unit, covered: 1 },
      k,
      filters: {},
      leaveOut: new Set(),
      fusion: null,
      judged: null,
      order: {
        sort: "likeness",
        nearest: 0,
        after,
        variety: 0,
        byProduct: true,
        similarityMin: null,
        among: null,
        copies: new Map(),
      },
    });
    found.push(...hits.map(({ row }) => names[row] as string));
    after = next;
  } while (after);
  expect(found).toEqual(["a", "d", "c"]);
});
