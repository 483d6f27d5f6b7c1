/** Near-duplicates and the items of one product become one hit (`index/search/hits.py`). */

import type { Constants } from "../format/manifest";
import type { Rows } from "../format/rows";
import { dot, type Floats } from "./linear";

/** Rows in descending order of likeness, ties by id, with their similarities. */
export interface Candidates {
  rows: readonly number[];
  similarities: readonly number[];
}

/** One result: the nearest of a group of rows that show the same image. */
export interface Hit {
  row: number;
  similarity: number;
  /** Its rank among all rows that pass the filters: near-duplicates count one by one. */
  rank: number;
  /** Rows of the same image, nearest first. */
  duplicates: readonly number[];
  /** Rows of the other items of its product, best first. */
  product: readonly number[];
}

export const NOTHING: Candidates = { rows: [], similarities: [] };

export const without = ({ rows, similarities }: Candidates, left: ReadonlySet<number>): Candidates =>
  left.size === 0
    ? { rows, similarities }
    : {
        rows: rows.filter((row) => !left.has(row)),
        similarities: similarities.filter((_, at) => !left.has(rows[at] as number)),
      };

/** Groups rows of one snapshot. Rows' vectors are read once. */
export class Grouping {
  private readonly units = new Map<number, Floats>();

  constructor(
    private readonly rows: Rows,
    private readonly constants: Constants,
  ) {}

  unit(row: number): Floats {
    let found = this.units.get(row);
    if (!found) {
      found = this.rows.vectors.unit(row);
      this.units.set(row, found);
    }
    return found;
  }

  /** Whether two rows show the same image. */
  isSame(a: number, b: number): boolean {
    const { same_bits, same_similarity } = this.constants.verdict;
    if (this.rows.bitsApart(a, b, same_bits) > same_bits) return false;
    return dot(this.unit(a), this.unit(b)) >= same_similarity;
  }

  /** The rows whose product no earlier row has. */
  firstOfProduct(rows: readonly number[]): number[] {
    const given = new Set<number>();
    return rows.filter((row) => {
      const product = this.rows.products[row] as number;
      if (product === 0 || !given.has(product)) {
        given.add(product);
        return true;
      }
      return false;
    });
  }

  /**
   * The first k different images, or products, and whether there are more of them.
   *
   * @param allowed What may be named as a duplicate; null: all.
   */
  hits(
    found: Candidates,
    k: number,
    leaveOut: ReadonlySet<number>,
    byProduct: boolean,
    allowed: Uint8Array | null,
  ): { hits: Hit[]; isMore: boolean } {
    const places = new Map(found.rows.map((row, place) => [row, place]));
    let left = byProduct ? this.firstOfProduct(found.rows) : [...found.rows];
    const hits: Hit[] = [];
    while (left.length > 0 && hits.length < k) {
      const first = left[0] as number;
      const copies = left.slice(1).filter((row) => this.isSame(first, row));
      const product = byProduct ? (this.rows.products[first] as number) : 0;
      const others = new Set([...copies, ...this.stored(first, product, allowed).filter((row) => !leaveOut.has(row))]);
      const rank = places.get(first) as number;
      hits.push({
        row: first,
        similarity: found.similarities[rank] as number,
        rank,
        duplicates: [...others].slice(0, this.constants.search.duplicates_max),
        product: [],
      });
      const same = new Set(copies);
      left = left.slice(1).filter((row) => !same.has(row));
    }
    return { hits, isMore: left.length > 0 };
  }

  /** Rows that a merge grouped with this one, if they may be shown and are not of its product (0: none). */
  private stored(row: number, product: number, allowed: Uint8Array | null): number[] {
    const { same_similarity } = this.constants.verdict;
    return this.rows
      .groupWith(row)
      .filter((other) => !allowed || allowed[other])
      .filter((other) => product === 0 || this.rows.products[other] !== product)
      .filter((other) => dot(this.unit(other), this.unit(row)) >= same_similarity);
  }

  /** The hits with the other items of their products, of rows in order. */
  withProducts(hits: readonly Hit[], inOrder: readonly number[]): Hit[] {
    const { products } = this.rows;
    return hits.map((hit) => {
      const product = products[hit.row] as number;
      if (product === 0) return hit;
      const others = inOrder.filter((row) => products[row] === product && row !== hit.row);
      return { ...hit, product: others.slice(0, this.constants.search.duplicates_max) };
    });
  }

  /**
   * The next k positions of rows by maximal marginal relevance: like the query and unlike those already chosen.
   *
   * @param variety 0: by similarity alone; 1: by difference alone.
   */
  varied(found: Candidates, isChosen: readonly boolean[], k: number, variety: number): number[] {
    const vectors = found.rows.map((row) => this.unit(row));
    const free = isChosen.map((chosen) => !chosen);
    const nearest = vectors.map((vector) =>
      vectors.reduce((best, other, at) => (isChosen[at] ? Math.max(best, dot(vector, other)) : best), -1),
    );
    const picked: number[] = [];
    while (picked.length < k && free.some(Boolean)) {
      let [best, most] = [-1, Number.NEGATIVE_INFINITY];
      found.similarities.forEach((similarity, at) => {
        const worth = (1 - variety) * similarity - variety * (nearest[at] as number);
        if (free[at] && worth > most) [best, most] = [at, worth];
      });
      picked.push(best);
      free[best] = false;
      vectors.forEach((vector, at) => {
        nearest[at] = Math.max(nearest[at] as number, dot(vector, vectors[best] as Floats));
      });
    }
    return picked;
  }
}
