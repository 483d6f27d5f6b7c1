/** How sure answers are across the gap between visitors' photos and the catalogue (`confidence/across.py`). */
import { fromBase64 } from "../../bytes/base64";
import { fromHalves, halvesOf } from "../../bytes/float16";
import type { Constants } from "../format/manifest";
import { clip, type Floats, mean, sigmoid } from "../search/linear";

type Numbers = Constants["across"];

/** From the calibration. */
export interface StoredAcross {
  catalogue: string;
  visitors: string;
  photos: number;
  augmented: string;
  is_on: boolean;
  intercept: number;
}

const unpacked = (text: string): Floats => fromHalves(halvesOf(fromBase64(text)));

export class Across {
  readonly catalogue: Floats;
  /** Subtracted from a query: augmented images show the side, but not what photos have in common. */
  readonly subtracted: Floats;
  private readonly visitors: Floats;
  private readonly isLearned: boolean;

  constructor(
    private readonly stored: StoredAcross,
    private readonly numbers: Numbers,
  ) {
    this.isLearned = stored.photos >= numbers.visitors_min;
    this.catalogue = unpacked(stored.catalogue);
    this.visitors = unpacked(this.isLearned ? stored.visitors : stored.augmented);
    this.subtracted = this.isLearned ? this.visitors : this.catalogue;
  }

  /** Whether a query (d,) is on the visitors' side of the gap, where copies of catalogue images never are. */
  isVisitor(vector: Floats): boolean {
    let sum = 0;
    for (let at = 0; at < vector.length; at += 1) {
      const apart = (this.visitors[at] as number) - (this.catalogue[at] as number);
      sum += ((vector[at] as number) - (this.catalogue[at] as number) - this.numbers.side * apart) * apart;
    }
    return sum > 0;
  }

  /** Probability that the catalogue holds what was searched for, from descending similarities. */
  held(similarities: ArrayLike<number>): number {
    if (similarities.length === 0) return 0;
    return sigmoid(this.numbers.held_slope * (similarities[0] as number) + this.stored.intercept);
  }

  /** Probability that each match at these ranks is what was searched for, if none were nearer; never increasing. */
  isIt(similarities: ArrayLike<number>, ranks: readonly number[]): number[] {
    const { first, unlearned, best_floor: floor, next, others } = this.numbers;
    let least = 1;
    return ranks.map((rank) => {
      const rest = Array.from(similarities).slice(rank);
      if (rest.length > 0) {
        const best = rest[0] as number;
        const behind = (part: typeof next) => (rest.length > part[0] ? mean(rest, ...part) : (rest.at(-1) as number));
        const ahead = [best - behind(next), (best - behind(others)) / Math.max(best, floor)] as const;
        const sum = first[0] * ahead[0] + first[1] * ahead[1] + first[2] + (this.isLearned ? 0 : unlearned);
        least = Math.min(least, sigmoid(clip(sum, -60, 60)));
      }
      return least;
    });
  }
}
