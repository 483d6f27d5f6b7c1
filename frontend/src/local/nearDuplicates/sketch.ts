/** What a stored hash keeps about the pixels: 32 bytes of PDQ, then luma of 12 × 12 cells and chroma of 3 × 3. */

import type { Constants } from "../format/manifest";
import type { Floats } from "../search/linear";
import type { Grey } from "./grey";

export type Layout = Pick<
  Constants["verdict"],
  "cells" | "chroma_cells" | "plane" | "luma_bits" | "pdq_bytes" | "hash_bytes"
>;

/** Luma of the cells, row by row, 0 to 255, in the middle of each step. */
export function lumaOf(hash: Uint8Array, layout: Layout): Floats {
  const { cells, luma_bits: bits, pdq_bytes } = layout;
  const step = 256 / (1 << bits);
  return Float32Array.from({ length: cells ** 2 }, (_, cell) => {
    let level = 0;
    for (let bit = cell * bits; bit < (cell + 1) * bits; bit += 1) {
      level = (level << 1) | (((hash[pdq_bytes + (bit >> 3)] as number) >> (7 - (bit & 7))) & 1);
    }
    return (level + 0.5) * step;
  });
}

/** Cb, then Cr, of the coarse cells, 0 to 255. */
export const chromaOf = (hash: Uint8Array, layout: Layout): Floats =>
  Float32Array.from(hash.subarray(layout.hash_bytes - 2 * layout.chroma_cells ** 2, layout.hash_bytes));

/** A picture in the form for comparing: planes of `plane` × `plane` pixels, 0 to 255, and a grey one. */
export interface Planes {
  luma: Floats;
  cb: Floats;
  cr: Floats;
  grey: Grey;
}

/** The picture that replaces the missing pixels of a hash. */
export function pictureOf(hash: Uint8Array, layout: Layout): Planes {
  const { plane, cells, chroma_cells: coarse } = layout;
  const chroma = chromaOf(hash, layout);
  const spread = (values: Floats, edge: number): Floats =>
    Float32Array.from({ length: plane ** 2 }, (_, at) => {
      const [y, x] = [Math.floor(at / plane), at % plane];
      return Math.trunc(values[Math.floor((y * edge) / plane) * edge + Math.floor((x * edge) / plane)] as number);
    });
  const luma = spread(lumaOf(hash, layout), cells);
  return {
    luma,
    cb: spread(chroma.subarray(0, coarse ** 2), coarse),
    cr: spread(chroma.subarray(coarse ** 2), coarse),
    grey: { width: plane, height: plane, levels: Uint8Array.from(luma) },
  };
}

/** Means (cells * cells,) of a square plane. */
export function cellMeans(plane: Floats, edge: number, cells: number): Floats {
  const sums = new Float64Array(cells ** 2);
  for (let at = 0; at < plane.length; at += 1) {
    const [y, x] = [Math.floor(at / edge), at % edge];
    const cell = Math.floor((y * cells) / edge) * cells + Math.floor((x * cells) / edge);
    sums[cell] = (sums[cell] as number) + (plane[at] as number);
  }
  return Float32Array.from(sums, (sum) => sum / (edge / cells) ** 2);
}
