/** How features become a confidence (`confidence/model.py`: the parts that judge; merges fit). */
import { fromBase64 } from "../../bytes/base64";
import { fromHalves, halvesOf } from "../../bytes/float16";
import type { Constants } from "../format/manifest";
import { dot, type Floats, mean, sigmoid } from "../search/linear";
import type { StoredAcross } from "./across";
import { behind, features, firstLogOdds, type Neighbourhood } from "./features";

type Numbers = Constants["confidence"];

/** As a merge wrote it. */
export interface StoredCalibration {
  weights: number[];
  intercept: number;
  centre: number[];
  spread: number[];
  mean: string;
  space: string | null;
  far_at: number;
  far_width: number;
  held_share: number;
  out_of_domain_share: number;
  images: number;
  first_centre: number;
  first_spread: number;
  first_slope: number;
  first_intercept: number;
  /** 0 to 1; absent if an older merge wrote the file: 1. */
  separability?: number;
  across: StoredAcross | null;
}

export class Calibration {
  /** (m,) of the space in which it was measured; empty if nothing was. */
  readonly mean: Floats;
  readonly isFitted: boolean;

  constructor(
    readonly stored: StoredCalibration,
    readonly numbers: Numbers,
  ) {
    this.mean = fromHalves(halvesOf(fromBase64(stored.mean)));
    this.isFitted = stored.weights.length > 0;
  }

  /** Log-odds that the query is of a kind in the catalogue rather than a stranger of the same shop, at even odds. */
  score(around: Neighbourhood): number {
    const { stored, numbers } = this;
    const m = around.query.length;
    if (around.rows.length === 0) return -60;
    if (!this.isFitted || m !== this.mean.length) {
      const best = Math.max(
        ...Array.from({ length: around.rows.length / m }, (_, row) => dot(around.rows, around.query, m, row * m)),
      );
      return this.scoreOfRows(best, around.rows.subarray(0, numbers.rows_compared * m), m);
    }
    const found = features(around, this.mean, numbers);
    const standard = numbers.features.map(
      (name, at) => ((found[name] as number) - (stored.centre[at] as number)) / (stored.spread[at] as number),
    );
    const best = standard[numbers.features.indexOf("best_similarity")] as number;
    const shortfall = Math.max(0, -numbers.short_from - best);
    const odds = standard.reduce((sum, value, at) => sum + value * (stored.weights[at] as number), stored.intercept);
    return odds - (stored.separability ?? 1) * numbers.short_weight * shortfall;
  }

  /** Confidence that the catalogue holds what was searched for. */
  confidence(score: number): number {
    const { out_of_domain_share: share, held_share: held, far_at, far_width } = this.stored;
    const ratio = Math.exp(Math.min(30, Math.max(-30, -(score - far_at) / far_width)));
    const strangers = ((1 - held) / held) * (1 - share + share * ratio);
    return sigmoid(score - Math.log(strangers));
  }

  /** Confidence of each result in order of rank; it never rises from one to the next, nor above `held`. */
  confidences(around: Neighbourhood, ranks: readonly number[], held: number): number[] {
    const count = around.rows.length / around.query.length;
    let least = held;
    return ranks.map((rank, number) => {
      if (number < this.numbers.judged && count > (number ? rank : 0)) {
        const at = Math.min(rank, count - 1);
        const first = at === 0 ? this.firstIfHeld(around) : null;
        least = Math.min(least, first === null ? sigmoid(this.score(behind(around, at))) : held * first);
      }
      return least;
    });
  }

  /** Probability that the nearest row is right if the catalogue holds it; null if that was not fitted. */
  private firstIfHeld(around: Neighbourhood): number | null {
    const { first_spread: spread, first_centre, first_slope, first_intercept, images } = this.stored;
    if (!spread || around.query.length !== this.mean.length || around.rows.length === 0) return null;
    const odds = firstLogOdds(around, this.mean, images, this.numbers.sharpness);
    return sigmoid(first_intercept + (first_slope * (odds - first_centre)) / spread);
  }

  /** Log-odds of a match with the similarity `best`, by how alike rows (h, m) of length 1 are to each other. */
  private scoreOfRows(best: number, rows: Floats, m: number): number {
    let [common, usual] = this.numbers.alone;
    const count = rows.length / m;
    if (count > 1) {
      const places = Array.from({ length: count }, (_, row) => row);
      const alike = places.map((a) => places.filter((b) => b !== a).map((b) => dot(rows, rows, m, a * m, b * m)));
      const known = Math.min(1, (count * (count - 1)) / 2 / (this.numbers.pairs_enough ?? 1));
      common += known * (mean(alike.flat()) - common);
      usual += known * (median(alike.map((row) => Math.max(...row))) - usual);
    }
    return (this.numbers.nearer * (best - usual)) / Math.max(1 - common, 1e-3);
  }
}

function median(values: readonly number[]): number {
  const rising = [...values].sort((a, b) => a - b);
  const middle = rising.length / 2;
  if (rising.length % 2) return rising[Math.floor(middle)] as number;
  return ((rising[middle - 1] as number) + (rising[middle] as number)) / 2;
}
