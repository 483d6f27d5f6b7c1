/** Similarity across the gap between visitors' photos and catalogue images (`index/search/fusion.py`). */

import type { Constants } from "../format/manifest";
import type { Rows } from "../format/rows";
import type { Space } from "../format/space";
import { dot, type Floats, minus, unit } from "./linear";

export type Numbers = Constants["fusion"];

export const lookBytes = ({ labels_kept, colours }: Numbers): number => 3 * labels_kept + colours;

/** Square roots of the label probabilities of a look, by label. */
function rootsOf(look: Uint8Array, { labels, labels_kept: kept }: Numbers): Map<number, number> {
  const roots = new Map<number, number>();
  for (let at = 0; at < kept; at += 1) {
    const label = Math.min((look[2 * at] as number) | ((look[2 * at + 1] as number) << 8), labels - 1);
    roots.set(label, Math.max(roots.get(label) ?? 0, (look[2 * kept + at] as number) / 255));
  }
  return roots;
}

/** Unit roots of the labels (1000,) and unit colours (162,) of a look. */
function traits(look: Uint8Array, numbers: Numbers): [labels: Floats, colours: Floats] {
  const labels = new Float32Array(numbers.labels);
  for (const [label, root] of rootsOf(look, numbers)) labels[label] = root;
  return [unit(labels), unit(look.subarray(3 * numbers.labels_kept))];
}

/** Numbers of at least 0 that add up to 1, or to 0. */
function shareOf(numbers: Floats): Floats {
  const total = numbers.reduce((sum, one) => sum + one, 0);
  return total > 0 ? numbers.map((one) => one / total) : numbers;
}

/** Weight of each word in the labels' names, by the weight of the label. */
function wordsOf(labels: Floats, names: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const weights: Record<string, number> = Object.create(null);
  for (const [label, said] of names.entries()) {
    for (const [word, part] of labels[label] ? Object.entries(said) : []) {
      weights[word] = (weights[word] ?? 0) + (labels[label] as number) * part;
    }
  }
  return weights;
}

/** A query on the visitors' side of the gap. Means have d + 1162 numbers: vector, labels, colours. */
export class Fusion {
  /** (m,) the vector with which rows are scanned. */
  readonly projected: Floats;
  /** Weight of each word. */
  readonly wordWeights: Readonly<Record<string, number>>;
  private readonly query: [vector: Floats, labels: Floats, colours: Floats];
  private readonly catalogue: [vector: Floats, labels: Floats, colours: Floats];

  constructor(
    vector: Floats,
    look: Uint8Array,
    visitors: Floats,
    catalogue: Floats,
    private readonly space: Space,
    private readonly numbers: Numbers,
    /** For each label, the words of its names. */
    private readonly names: readonly Readonly<Record<string, number>>[],
  ) {
    const d = vector.length;
    const partsOf = (mean: Floats): [Floats, Floats, Floats] => [
      mean.subarray(0, d),
      mean.subarray(d, d + numbers.labels),
      mean.subarray(d + numbers.labels),
    ];
    const seen = partsOf(visitors);
    this.catalogue = partsOf(catalogue);
    const own = [unit(vector), ...traits(look, numbers)] as [Floats, Floats, Floats];
    const usual = seen[1].map((root) => root * root + numbers.usual_floor);
    const shares = (roots: Floats) => shareOf(roots.map((root, label) => (root * root) / (usual[label] as number)));
    this.wordWeights = own[1].some(Boolean) ? wordsOf(minus(shares(own[1]), shares(seen[1])), names) : {};
    const apart = own.map((part, at) => minus(part, seen[at] as Floats)) as [Floats, Floats, Floats];
    apart[1] = apart[1].map((value, label) => value / Math.sqrt(usual[label] as number));
    this.query = apart.map(unit) as [Floats, Floats, Floats];
    const moved = own[0].map((value, at) => value - (visitors[at] as number) + (catalogue[at] as number));
    this.projected = space.place(moved).unit;
  }

  /**
   * How near a row is; more than 1 if everything agrees.
   *
   * @param words Sum of its words' weights.
   */
  similarity(rows: Rows, row: number, words: number): number {
    const { vectors } = rows;
    const size = lookBytes(this.numbers);
    const look = rows.looks?.subarray(row * size, (row + 1) * size) ?? new Uint8Array(size);
    const { labels_weight, words_weight, colours_weight, named_weight = 0 } = this.numbers;
    const near = this.space.projection
      ? vectors.similarity(row, this.projected)
      : dot(unit(minus(vectors.unit(row), this.catalogue[0])), this.query[0]);
    const [labels, colours] = traits(look, this.numbers).map((part, at) =>
      part.some((value) => value !== 0)
        ? dot(unit(minus(part, this.catalogue[at + 1] as Floats)), this.query[at + 1] as Floats)
        : 0,
    ) as [number, number];
    const beside = labels_weight * labels + colours_weight * colours;
    return Math.fround(near + beside + (words_weight * words - named_weight * this.named(look, rows.wordsOf(row))));
  }

  /** How far an item's words name what its own picture shows. */
  private named(look: Uint8Array, words: readonly string[]): number {
    let found = 0;
    for (const [label, root] of rootsOf(look, this.numbers)) {
      const said = this.names[label] ?? {};
      for (const word of words) found += Math.fround(root) * (Object.hasOwn(said, word) ? (said[word] as number) : 0);
    }
    return found;
  }
}
