/** What a stored hash keeps of the pixels: 32 bytes of PDQ, then luma of 12 × 12 cells and chroma of 3 × 3. */
import type { Grey } from "./grey";
import type { Floats } from "./linear";
import type { Constants } from "./manifest";

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

/** A picture as it is compared: planes of `plane` × `plane` pixels, 0 to 255, and a grey one. */
export interface Planes {
  luma: Floats;
  cb: Floats;
  cr: Floats;
  grey: Grey;
}

/** The picture that stands in for a hash whose pixels are not here: its own hash has the same sketch, but for rounding. */
export function pictureOf(hash: Uint8Array, layout: Layout): Planes {
  const { plane, cells, chroma_cells: coarse } = layout;
  const chroma = chromaOf(hash, layout);
  const luma = lumaOf(hash, layout);
  const planes = [0, 1, 2].map(() => new Float32Array(plane ** 2)) as [Floats, Floats, Floats];
  const levels = new Uint8Array(plane ** 2);
  for (let y = 0, at = 0; y < plane; y += 1) {
    for (let x = 0; x < plane; x += 1, at += 1) {
      const cellOf = (edge: number) => Math.floor((y * edge) / plane) * edge + Math.floor((x * edge) / plane);
      const of = cellOf(coarse);
      const [cb, cr] = [chroma[of] as number, chroma[coarse ** 2 + of] as number];
      const rgb = rgbOf(Math.trunc(luma[cellOf(cells)] as number), cb, cr);
      ycbcrOf(rgb).forEach((value, channel) => {
        (planes[channel] as Floats)[at] = value;
      });
      levels[at] = greyOf(rgb);
    }
  }
  return { luma: planes[0], cb: planes[1], cr: planes[2], grey: { width: plane, height: plane, levels } };
}

type Triple = [number, number, number];

/** Pillow's conversions: products in 64ths, rounded one by one. */
const part = (weight: number, value: number): number => Math.floor(weight * 64 * value + 0.5);
const level = (value: number): number => Math.min(255, Math.max(0, value));

const rgbOf = (y: number, cb: number, cr: number): Triple => [
  level(y + (part(1.402, cr - 128) >> 6)),
  level(y + ((part(-0.34414, cb - 128) + part(-0.71414, cr - 128)) >> 6)),
  level(y + (part(1.772, cb - 128) >> 6)),
];

const ycbcrOf = ([r, g, b]: Triple): Triple => [
  (part(0.299, r) + part(0.587, g) + part(0.114, b)) >> 6,
  ((part(-0.16874, r) + part(-0.33126, g) + part(0.5, b)) >> 6) + 128,
  ((part(0.5, r) + part(-0.41869, g) + part(-0.08131, b)) >> 6) + 128,
];

const greyOf = ([r, g, b]: Triple): number => (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;

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
