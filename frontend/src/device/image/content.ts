import { borderOf, medians } from "./colours";
import { type Pixels, resize, sampled } from "./pixels";

/** As in visor/imaging/content.py, which says what each limit distinguishes. */
const SIDE = 128;
const SIDE_MIN = 8;
const COARSE_SIDE = 64;
const EDGE_MIN = 12;
const GROUND_DISTANCE = 16;
const RIM = 2;
const COLOUR_DISTANCE = 48;
const COLOUR_SHARE_MIN = 0.02;
const COLOURS_MAX = 8;
const MISSING_DISTANCE = 3;
const QUERY_INNER_MIN = 0.01;
const EDGES_MIN = 0.01;
const COLOURS_MIN = 4;
const CORRELATION_MIN = 0.1;
const MISSING_MAX = 0.4;

/** The values of `Emptiness`, which the server knows. */
const BLANK = "This picture is nearly blank: there is nothing in it to compare.";
const FLAT = "This picture has only flat shapes or lettering in few colours: too little to compare.";
const NOISE = "This picture is noise: there is nothing in it to compare.";
const CUT = "The lower part of this picture is missing: only a part of it has arrived.";

type Triple = readonly [number, number, number];

/** Why there is nothing to compare in a picture; null if there is something. */
export function emptiness(pixels: Pixels): string | null {
  const coarse = scaled(pixels, COARSE_SIDE, COARSE_SIDE);
  const within = (side: number) => Math.min(Math.max(side, SIDE_MIN), SIDE);
  const { inner, edges } = edgesIn(pixels, within(pixels.width), within(pixels.height));
  if (inner < QUERY_INNER_MIN && edges < EDGES_MIN) return BLANK;
  if (inner < QUERY_INNER_MIN && coloursOf(pixels) < COLOURS_MIN) return FLAT;
  if (correlation(coarse.map(lumaOf)) < CORRELATION_MIN) return NOISE;
  return missingShare(coarse) >= MISSING_MAX ? CUT : null;
}

function scaled(pixels: Pixels, width: number, height: number): Triple[] {
  const isSmaller = pixels.width >= width && pixels.height >= height;
  return triples(resize(pixels, width, height, isSmaller ? "box" : "bicubic"));
}

function triples({ data, width, height }: Pixels): Triple[] {
  return Array.from({ length: width * height }, (_, i) => Array.from(data.subarray(i * 3, i * 3 + 3)) as never);
}

const lumaOf = ([r, g, b]: Triple): number => 0.299 * r + 0.587 * g + 0.114 * b;

/** The largest difference of a channel. */
const distance = (one: Triple, other: Triple): number =>
  Math.max(Math.abs(one[0] - other[0]), Math.abs(one[1] - other[1]), Math.abs(one[2] - other[2]));

function mean(all: readonly Triple[]): Triple {
  const sums = [0, 0, 0];
  for (const one of all)
    for (const channel of [0, 1, 2] as const) sums[channel] = (sums[channel] as number) + one[channel];
  return sums.map((sum) => sum / all.length) as never;
}

/** Shares of pixels on an edge: without outlines, and all. */
function edgesIn(pixels: Pixels, width: number, height: number): { inner: number; edges: number } {
  const square = scaled(pixels, width, height);
  const luma = square.map(lumaOf);
  const at = (i: number) => luma[i] as number;
  const middle = medians(borderOf(square, width, height));
  const ground = square.map((one) => distance(one, middle) < GROUND_DISTANCE);
  const [near, far] = [
    widened(ground, width),
    widened(
      ground.map((is) => !is),
      width,
    ),
  ];
  let [inner, edges] = [0, 0];
  for (let y = 1; y < height - 1; y++) {
    for (let x = 1; x < width - 1; x++) {
      const i = y * width + x;
      if (Math.abs(4 * at(i) - at(i - width) - at(i + width) - at(i - 1) - at(i + 1)) <= EDGE_MIN) continue;
      edges++;
      if (!(near[i] && far[i])) inner++;
    }
  }
  return { inner: inner / square.length, edges: edges / square.length };
}

function widened(mask: boolean[], width: number): boolean[] {
  let wide = mask;
  for (let step = 0; step < RIM; step++) {
    const now = wide;
    wide = now.map((is, i) => {
      const x = i % width;
      const beside = (x > 0 && now[i - 1]) || (x < width - 1 && now[i + 1]);
      return is || beside || now[i - width] === true || now[i + width] === true;
    });
  }
  return wide;
}

/** Clearly different colours; the most frequent one first takes those that are near to it. */
function coloursOf(pixels: Pixels): number {
  let left = triples(sampled(pixels, COARSE_SIDE, COARSE_SIDE));
  const enough = COLOUR_SHARE_MIN * left.length;
  let found = 0;
  for (let turn = 0; turn < 2 * COLOURS_MAX && left.length >= enough && found < COLOURS_MAX; turn++) {
    const bin = ([r, g, b]: Triple) => (r >> 4) * 256 + (g >> 4) * 16 + (b >> 4);
    const counts = new Uint16Array(4096);
    for (const one of left) counts[bin(one)] = (counts[bin(one)] as number) + 1;
    const best = counts.indexOf(counts.reduce((most, count) => Math.max(most, count), 0));
    const most = mean(left.filter((one) => bin(one) === best));
    const rest = left.filter((one) => distance(one, most) > COLOUR_DISTANCE);
    if (left.length - rest.length >= enough) found++;
    left = rest;
  }
  return found;
}

function correlation(luma: readonly number[]): number {
  const middle = luma.reduce((sum, value) => sum + value, 0) / luma.length;
  let [variance, across, down] = [0, 0, 0];
  luma.forEach((value, i) => {
    const here = value - middle;
    variance += here * here;
    if ((i + 1) % COARSE_SIDE !== 0) across += here * ((luma[i + 1] as number) - middle);
    if (i + COARSE_SIDE < luma.length) down += here * ((luma[i + COARSE_SIDE] as number) - middle);
  });
  variance /= luma.length;
  return variance <= 1 ? 1 : (across + down) / (luma.length - COARSE_SIDE) / 2 / variance;
}

/** The share of the height, from the bottom up, that has one colour which the rest of the border does not have. */
function missingShare(square: readonly Triple[]): number {
  const row = (y: number) => square.slice(y * COARSE_SIDE, (y + 1) * COARSE_SIDE);
  const fill = mean(row(COARSE_SIDE - 1));
  let there = COARSE_SIDE;
  while (there > 0 && row(there - 1).every((one) => distance(one, fill) < MISSING_DISTANCE)) there--;
  if (there === 0) return 0;
  const sides = Array.from({ length: there }, (_, y) => [row(y)[0] as Triple, row(y)[COARSE_SIDE - 1] as Triple]);
  const border = [...row(0), ...sides.flat()];
  const differing = border.filter((one) => distance(one, fill) > GROUND_DISTANCE).length;
  return differing > border.length / 2 ? (COARSE_SIDE - there) / COARSE_SIDE : 0;
}
