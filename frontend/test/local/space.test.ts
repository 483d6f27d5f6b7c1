import { expect, test } from "vitest";
import type { Judge } from "../../src/local/confidence/judge";
import type { Items } from "../../src/local/format/items";
import type { Manifest } from "../../src/local/format/manifest";
import type { Rows } from "../../src/local/format/rows";
import { Space } from "../../src/local/format/space";
import { encodeVector, QueryReader } from "../../src/local/query";
import { dot, type Floats, unit } from "../../src/local/search/linear";

const [D, M] = [400, 8];

/** Numbers that look random and are the same each time. */
function numbers(count: number, seed: number): Floats {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32 - 0.5;
  });
}

/** The space of the first M numbers; a vector has about the same length inside and outside of it. */
const space = new Space(
  {
    origin: new Float32Array(D),
    matrix: Float32Array.from({ length: D * M }, (_, at) => Number(Math.floor(at / M) === at % M)),
    inverse: Float32Array.from({ length: M * M }, (_, at) => Number(Math.floor(at / M) === at % M)),
  },
  D,
);
const vectors = [1, 2].map((from) => {
  const [inside, outside] = [unit(numbers(M, from)), unit(numbers(D - M, from))];
  return unit([...inside, ...outside.map((value) => value * from)]);
});
const placed = vectors.map((vector) => space.place(vector));

test("of a point the part in the space is known, and how long the rest is", () => {
  for (const [at, vector] of vectors.entries()) {
    const { known, lost } = space.unplaced({ ...(placed[at] as (typeof placed)[0]), full: null });
    known.forEach((value, n) => {
      expect(value).toBeCloseTo(n < M ? (vector[n] as number) : 0, 5);
    });
    expect(dot(known, known) + lost ** 2).toBeCloseTo(1, 5);
    const again = space.place(known, lost);
    expect(again.covered).toBeCloseTo(placed[at]?.covered as number, 5);
    expect(dot(again.unit, placed[at]?.unit as Floats)).toBeCloseTo(1, 5);
  }
});

test.each([1, 0.5, -0.5])("items with the weight %f are covered as their vectors are", async (weight) => {
  const rows = {
    find: (id: string) => Number(id),
    full: null,
    vectors: { unit: (row: number) => placed[row]?.unit },
    covered: Float32Array.from(placed, ({ covered }) => covered),
  } as unknown as Rows;
  const manifest = { constants: { fusion: { labels_kept: 32, colours: 162 } }, settings: { unsafe_query: 1 } };
  const judge = { across: null, calibration: { isFitted: false } } as unknown as Judge;
  const items = { get: async () => new Map() } as unknown as Items;
  const reader = new QueryReader(manifest as unknown as Manifest, rows, space, judge, items);
  const [ofItems, ofVectors] = await Promise.all([
    reader.read({ examples: [{ item: "0" }, { item: "1", weight }] }),
    reader.read({ examples: vectors.map((one, at) => ({ vector: encodeVector(one, null), weight: at ? weight : 1 })) }),
  ]);
  const [covered, whole] = [ofItems.placed?.covered as number, ofVectors.placed?.covered as number];
  expect(whole).toBeLessThan(0.8);
  expect(Math.abs(covered - whole)).toBeLessThan(0.03);
  expect(dot(ofItems.placed?.unit as Floats, ofVectors.placed?.unit as Floats)).toBeGreaterThan(0.999);
});
