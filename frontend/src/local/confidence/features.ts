/** What is around a query: the numbers that distinguish a find from a miss (`confidence/features.py` explains each). */

import type { Constants } from "../format/manifest";
import { deviation, dot, type Floats, fallingOrder, mean, minusRows, unitRows } from "../search/linear";

type Numbers = Constants["confidence"];

/** A query and its nearest rows, nearest first. */
export interface Neighbourhood {
  /** (m,), of the length that the space covers. */
  query: Floats;
  /** (h, m), each of length 1. */
  rows: Floats;
  /** Content labels of a row, most probable first. */
  labelsOf: (place: number) => readonly string[];
  queryLabels: readonly string[];
  sampled: Sampled | null;
}

/** A query compared with a sample of the catalogue. */
export interface Sampled {
  similarities: ArrayLike<number>;
  /** The mean (m,) of the sample's centred rows. */
  middle: Floats;
}

/** Rows [from, …) of a neighbourhood. */
export const behind = (around: Neighbourhood, from: number): Neighbourhood => ({
  ...around,
  rows: around.rows.subarray(from * around.query.length),
  labelsOf: (place) => around.labelsOf(place + from),
});

/** Similarities of a query, of its covered length, to rows (b, m) of a sample that are centred on the mean. */
export function centredSimilarities(query: Floats, middle: Floats, sample: Floats): Float64Array {
  const m = query.length;
  const moved = query.map((value, at) => value - (middle[at] as number));
  // The query's part outside the space counts for its length.
  const length = Math.sqrt(Math.max(1 - 2 * dot(query, middle) + dot(middle, middle), 1e-9));
  return Float64Array.from({ length: sample.length / m }, (_, row) => dot(sample, moved, m, row * m) / length);
}

/** Log-odds of the nearest row among all of the catalogue, by the softmax of their centred similarities. */
export function firstLogOdds(around: Neighbourhood, middle: Floats, images: number, sharpness: number): number {
  const centred = unitRows(minusRows(around.rows, middle), middle.length);
  const near = centredSimilarities(around.query, middle, centred).map((value) => sharpness * value);
  let others = near.subarray(1).reduce((sum, value) => sum + Math.exp(value), 0);
  const sampled = around.sampled?.similarities ?? [];
  if (images > near.length && sampled.length > 0) {
    // Rows that are not among the nearest are estimated from the sample.
    const least = near.reduce((a, b) => Math.min(a, b));
    const far = Float64Array.from(sampled, (value) => Math.exp(Math.min(sharpness * value, least)));
    others += (images - near.length) * mean(far);
  }
  return (near[0] as number) - Math.log(Math.max(others, 1e-9));
}

/** The numbers of `features`, by their names; of at least one row. */
export function features(around: Neighbourhood, middle: Floats, numbers: Numbers): Record<string, number> {
  const { query, rows } = around;
  const m = query.length;
  const count = rows.length / m;
  const common = dot(middle, middle);
  const each = <Value>(make: (row: number) => Value): Value[] => Array.from({ length: count }, (_, row) => make(row));
  const raw = each((row) => dot(rows, query, m, row * m));
  const onMean = each((row) => dot(rows, middle, m, row * m));
  const lengths = onMean.map((value) => Math.sqrt(Math.max(1 - 2 * value + common, 1e-9)));
  const queryOnMean = dot(query, middle);
  const own = Math.sqrt(Math.max(1 - 2 * queryOnMean + common, 1e-9));
  const similarities = raw.map(
    (value, row) => (value - queryOnMean - (onMean[row] as number) + common) / (own * (lengths[row] as number)),
  );
  const order = fallingOrder(similarities);
  const s = order.map((row) => similarities[row] as number);
  const few = order.slice(0, 8);
  // The centred cosines of the best rows with all, -1 with themselves.
  const among = few.map((a) =>
    each((b) => {
      if (a === b) return -1;
      const both = dot(rows, rows, m, a * m, b * m);
      const centred = both - (onMean[a] as number) - (onMean[b] as number) + common;
      return centred / ((lengths[a] as number) * (lengths[b] as number));
    }),
  );
  const closest = among.map((row) => Float64Array.from(row).sort().reverse());
  const most = (n: number) => Math.min(n, Math.max(count - 1, 1));
  const [own3, own8] = [3, 8].map((n) => closest.map((row) => mean(row, 0, most(n)))) as [number[], number[]];
  const far = count > numbers.far[0] ? mean(s, ...numbers.far) : (s.at(-1) as number);
  let others: ArrayLike<number> = s;
  let hitsOthers = among.map((row) => mean(row));
  const { sampled } = around;
  if (sampled && sampled.similarities.length > 1) {
    others = sampled.similarities;
    const shift = dot(middle, sampled.middle);
    hitsOthers = few.map((row) => (dot(rows, sampled.middle, m, row * m) - shift) / (lengths[row] as number));
  }
  const [best1, best8] = [s[0] as number, mean(s, 0, 8)];
  const above = best8 - mean(others);
  const circle = Math.min(numbers.shared, Math.floor(count / 3) + 1);
  const near = new Set(order.slice(0, circle));
  // A hit is the first in its own neighbourhood.
  const circles = among.slice(0, 5).flatMap((row, at) => {
    const withSelf = row.map((value, place) => (place === few[at] ? 1 : value));
    return fallingOrder(withSelf).slice(0, circle);
  });
  const five = few.slice(0, 5);
  const together = five.flatMap((_, at) =>
    five.flatMap((row, other) => (other === at ? [] : [among[at]?.[row] as number])),
  );
  return {
    best_similarity: raw.reduce((a, b) => Math.max(a, b)),
    centred_1: best1,
    centred_8: best8,
    margin_1: best1 - far,
    margin_3: mean(s, 0, 3) - far,
    local_scaling_1: Math.max(...s.slice(0, 5).map((value, at) => value - (own3[at] as number))),
    local_scaling_8: best8 - mean(own8),
    top5_cohesion: together.length > 0 ? mean(together) : best1,
    background_margin: above,
    background_spread: deviation(others),
    relative_background_margin: above - mean(own8.map((value, at) => value - (hitsOthers[at] as number))),
    shared_neighbours: circles.filter((row) => near.has(row)).length / circles.length,
    label_agreement: labelCosine(around.queryLabels, five.map(around.labelsOf), numbers.label_decay),
  };
}

/** Mean cosine between label lists, whose n-th name counts less by `decay` than the one before; 0 if unknown. */
function labelCosine(query: readonly string[], hits: readonly (readonly string[])[], decay: number): number {
  if (query.length === 0 || hits.length === 0) return 0;
  const weightsOf = (names: readonly string[]) => new Map(names.map((name, place) => [name, decay ** place]));
  const squares = (weights: Map<string, number>) => [...weights.values()].reduce((sum, w) => sum + w * w, 0);
  const wanted = weightsOf(query);
  return mean(
    hits.map((names) => {
      const have = weightsOf(names);
      const length = Math.sqrt(squares(wanted) * squares(have));
      const shared = [...wanted].reduce((sum, [name, weight]) => sum + weight * (have.get(name) ?? 0), 0);
      return length > 0 ? shared / length : 0;
    }),
  );
}
