import { roundedToEven } from "../../bytes/float16";
import type { Box } from "../../endpoint/contract";
import { cropped, type Edges, edgesOf, type Pixels } from "./pixels";

/** Pixels: a smaller box has nothing to recognise. */
export const BOX_SIDE_MIN = 8;

/** So little of a picture is left that there is nothing to search for. */
export class TooLittle extends Error {
  constructor(
    readonly width: number,
    readonly height: number,
  ) {
    super(`${width} × ${height} pixels are left`);
  }
}

/**
 * The part of a picture that counts, as visor/search/query.py cuts it: the part within `box`, cropped to what `exclude`
 * leaves of it; the excluded parts get the mean colour of the rest.
 */
export function focus(pixels: Pixels, box: Box | null, exclude: readonly Box[]): Pixels {
  if (box === null && exclude.length === 0) return pixels;
  const edges: Edges = box === null ? [0, 0, pixels.width, pixels.height] : edgesOf(pixels, box);
  const [width, height] = [edges[2] - edges[0], edges[3] - edges[1]];
  const counts = new Uint8Array(Math.max(0, width * height)).fill(1);
  for (const one of exclude) {
    const [left, top, right, bottom] = edgesOf(pixels, one);
    const [x0, x1] = [Math.max(left - edges[0], 0), Math.min(right - edges[0], width)];
    for (let y = Math.max(top - edges[1], 0); y < Math.min(bottom - edges[1], height) && x1 > x0; y++) {
      counts.fill(0, y * width + x0, y * width + x1);
    }
  }
  const [x0, y0, x1, y1] = boundsOf(counts, width, height);
  const [columns, rows] = [x1 - x0, y1 - y0];
  if (columns < BOX_SIDE_MIN || rows < BOX_SIDE_MIN) throw new TooLittle(columns, rows);
  const part = cropped(pixels, [edges[0] + x0, edges[1] + y0, edges[0] + x1, edges[1] + y1]);
  const isLeft = (i: number) => counts[(Math.floor(i / columns) + y0) * width + (i % columns) + x0] === 1;
  const sums = [0, 0, 0];
  let left = 0;
  for (let i = 0; i < columns * rows; i++) {
    if (!isLeft(i)) continue;
    left++;
    for (let c = 0; c < 3; c++) sums[c] = (sums[c] as number) + (part.data[i * part.step + c] as number);
  }
  const mean = sums.map((sum) => roundedToEven(sum / left));
  for (let i = 0; i < columns * rows; i++) if (!isLeft(i)) part.data.set(mean, i * part.step);
  return part;
}

function boundsOf(counts: Uint8Array, width: number, height: number): Edges {
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let y = 0; y < height; y++) {
    const row = counts.subarray(y * width, (y + 1) * width);
    const first = row.indexOf(1);
    if (first < 0) continue;
    [left, right] = [Math.min(left, first), Math.max(right, row.lastIndexOf(1) + 1)];
    [top, bottom] = [Math.min(top, y), y + 1];
  }
  return right > 0 ? [left, top, right, bottom] : [0, 0, 0, 0];
}
