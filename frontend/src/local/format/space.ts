/** The similarity space, and rows in it: int8 codes of a projection, or full vectors (`index/format/projection.py`). */
import { dot, type Floats, lengthOf, minus, unit } from "../search/linear";
import type { Codes } from "../search/scan";

/** Maps full vectors (d,) to m numbers whose inner product is the similarity. */
export interface Projection {
  /** (d,) */
  origin: Floats;
  /** (d, m), row by row. */
  matrix: Floats;
  /** (m, m): undoes the matrix's effect on lengths. */
  inverse: Floats;
}

/** A point in the space. */
export interface Placed {
  /** (d,), length 1; null if only the point is known: the device has no full vectors of a projected index. */
  full: Floats | null;
  /** (m,), length 1. */
  unit: Floats;
  /** Share of the full vector's length, measured from the origin, that the space covers. */
  covered: number;
}

export class Space {
  /** m, or d if nothing is projected. */
  readonly dimensions: number;

  constructor(
    readonly projection: Projection | null,
    /** d */
    readonly dimension: number,
  ) {
    this.dimensions = projection ? projection.matrix.length / dimension : dimension;
  }

  /**
   * The point of a full vector of length 1.
   *
   * @param lost Length of a part of it that is outside the space, where `vector` is the rest.
   */
  place(vector: Floats, lost = 0): Placed {
    if (!this.projection) return { full: vector, unit: unit(vector), covered: 1 };
    const moved = minus(vector, this.projection.origin);
    const inside = this.inside(moved);
    const energy = dot(this.byInverse(inside), inside);
    const covered = Math.sqrt(Math.min(1, Math.max(0, energy / Math.max(dot(moved, moved) + lost ** 2, 1e-12))));
    return { full: vector, unit: unit(inside), covered };
  }

  /** What is known of a point's full vector (d,) of length 1, and the length of its part outside the space. */
  unplaced({ full, unit: inside, covered }: Placed): { known: Floats; lost: number } {
    if (full || !this.projection) return { known: full ?? inside, lost: 0 };
    const { origin, matrix } = this.projection;
    const weights = this.byInverse(inside);
    const towards = Float32Array.from(origin, (_, row) => dot(matrix, weights, weights.length, row * weights.length));
    // Full vectors have length 1, which determines how far from the origin this one is.
    const length = lengthOf(towards) || 1;
    const b = (covered * dot(towards, origin)) / length;
    const far = -b + Math.sqrt(Math.max(0, b * b + 1 - dot(origin, origin)));
    const within = (far * covered) / length;
    const known = origin.map((value, at) => value + within * (towards[at] as number));
    return { known, lost: far * Math.sqrt(Math.max(0, 1 - covered ** 2)) };
  }

  private inside(moved: Floats): Floats {
    const { matrix } = this.projection as Projection;
    const m = this.dimensions;
    const sums = new Float64Array(m);
    for (let row = 0; row < moved.length; row += 1) {
      const value = moved[row] as number;
      for (let at = 0; at < m; at += 1) sums[at] = (sums[at] as number) + value * (matrix[row * m + at] as number);
    }
    return Float32Array.from(sums);
  }

  private byInverse(inside: Floats): Floats {
    const m = this.dimensions;
    const { inverse } = this.projection as Projection;
    return Float32Array.from({ length: m }, (_, row) => dot(inverse, inside, m, row * m));
  }
}

/** n rows of a space. */
export interface Vectors {
  readonly count: number;
  /** One row, (m,), length 1. */
  unit(row: number): Floats;
  /** Rows (r, m), each of length 1. */
  units(rows: ArrayLike<number>): Floats;
  /** Similarity of one row to a query (m,) of length 1. */
  similarity(row: number, query: Floats): number;
  /** (n,) similarities of all rows, exact enough to order all but close ones. */
  all(query: Floats): Floats;
}

const MIDDLE = 128;

/** Rows as codes. */
export class CodedVectors implements Vectors {
  readonly count: number;
  private readonly lengths: Floats;

  constructor(private readonly codes: Codes) {
    const { bytes, stride, m, count } = codes;
    this.count = count;
    this.lengths = Float32Array.from({ length: count }, (_, row) => {
      let sum = 0;
      for (let at = row * stride; at < row * stride + m; at += 1) sum += ((bytes[at] as number) - MIDDLE) ** 2;
      return Math.sqrt(sum) || 1;
    });
  }

  unit(row: number): Floats {
    const { bytes, stride, m } = this.codes;
    const length = this.lengths[row] as number;
    return Float32Array.from(bytes.subarray(row * stride, row * stride + m), (code) => (code - MIDDLE) / length);
  }

  units(rows: ArrayLike<number>): Floats {
    const { m } = this.codes;
    const found = new Float32Array(rows.length * m);
    for (let at = 0; at < rows.length; at += 1) found.set(this.unit(rows[at] as number), at * m);
    return found;
  }

  similarity(row: number, query: Floats): number {
    return Math.fround(dot(this.unit(row), query));
  }

  all(query: Floats): Floats {
    const found = this.codes.products(query);
    for (let row = 0; row < found.length; row += 1) {
      found[row] = (found[row] as number) / (this.lengths[row] as number);
    }
    return found;
  }
}

/** Rows as they are, (n, d) float32 of length 1, in an index without a projection. */
export class FullVectors implements Vectors {
  readonly count: number;

  constructor(
    private readonly vectors: Floats,
    private readonly d: number,
  ) {
    this.count = vectors.length / d;
  }

  unit(row: number): Floats {
    return this.vectors.slice(row * this.d, (row + 1) * this.d);
  }

  units(rows: ArrayLike<number>): Floats {
    const found = new Float32Array(rows.length * this.d);
    for (let at = 0; at < rows.length; at += 1) found.set(this.unit(rows[at] as number), at * this.d);
    return found;
  }

  similarity(row: number, query: Floats): number {
    return Math.fround(dot(this.vectors, query, this.d, row * this.d));
  }

  all(query: Floats): Floats {
    return Float32Array.from({ length: this.count }, (_, row) => this.similarity(row, query));
  }
}
