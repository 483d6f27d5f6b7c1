/** Whether a match is the same image as the query, an edited copy of it, or merely similar (`near_duplicates/verdict.py`). */
import type { Verdict } from "../../endpoint/contract";
import type { Constants } from "../format/manifest";
import { Aligner } from "./align";
import { cellMeans, chromaOf, lumaOf, pictureOf } from "./sketch";

type Numbers = Constants["verdict"];

/** What was searched for, if it is one picture. */
export interface Asked {
  aligner: Aligner | null;
  /** Stored hash of the item, if one was searched for. */
  hash: Uint8Array | null;
}

/** The aligner of a picture of which only the hash is here. */
export const alignerOf = (hash: Uint8Array, numbers: Numbers): Aligner =>
  new Aligner(pictureOf(hash, numbers), numbers);

/**
 * A verdict for each match; `similar` if there is nothing to align with them.
 *
 * @param similarities To the query; NaN if there was none.
 * @param hashes Whole stored hashes; null if one is not known: such a match is similar.
 */
export function classify(
  similarities: readonly number[],
  hashes: readonly (Uint8Array | null)[],
  asked: Asked,
  numbers: Numbers,
): Verdict[] {
  let { aligner, hash } = asked;
  if (!aligner && !hash && hashes.length > 0) {
    // A link to an answer has only a vector: if the nearest match has the same one, its hash is used.
    const nearest = similarities.reduce((best, one, at) => (one > (similarities[best] as number) ? at : best), 0);
    if ((similarities[nearest] as number) >= numbers.same_vector_min) hash = hashes[nearest] ?? null;
  }
  if (!aligner && hash) aligner = alignerOf(hash, numbers);
  return hashes.map((found, at) => {
    if (!aligner || !found) return "similar";
    if (isSame(aligner, found, numbers)) return "exact";
    // Sketches of less similar images fit by chance, so they are not aligned.
    if (!((similarities[at] as number) >= numbers.edited_similarity_min)) return "similar";
    const fit = aligner.bestFit(lumaOf(found, numbers), numbers.edited_correlation_min);
    return fit >= numbers.edited_correlation_min ? "edited" : "similar";
  });
}

/** Whether sketches differ no more than re-encoding and resizing can explain. */
function isSame({ planes }: Aligner, hash: Uint8Array, numbers: Numbers): boolean {
  const { plane, cells, chroma_cells: coarse } = numbers;
  const luma = cellMeans(planes.luma, plane, cells);
  const chroma = [...cellMeans(planes.cb, plane, coarse), ...cellMeans(planes.cr, plane, coarse)];
  const isNear = (mine: ArrayLike<number>, theirs: ArrayLike<number>, most: number): boolean =>
    Array.from(mine).every((value, at) => Math.abs(value - (theirs[at] as number)) <= most);
  return (
    isNear(luma, lumaOf(hash, numbers), numbers.exact_luma_max) &&
    isNear(chroma, chromaOf(hash, numbers), numbers.exact_chroma_max)
  );
}
