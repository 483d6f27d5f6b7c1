import { roundedToEven } from "../../bytes/float16";
import { type Edges, type Pixels, resize } from "./pixels";

/** As in visor/imaging/colour_signature.py. */
const SIDE = 56;
const BINS = 9;
const BIN_WIDTH = 16;
const COLOURS = BINS * BINS * 2;
const GROUND_DISTANCE = 12;
const GROUND_SHARE = 0.75;

type Triple = readonly [number, number, number];

/** The colours of a picture, or of a part of it: roots of a soft histogram in 162 bytes. A plain background is left out. */
export function colourSignature(pixels: Pixels, box?: Edges): Uint8Array {
  const { data } = resize(pixels, SIDE, SIDE, "box", box);
  const lab = Array.from({ length: SIDE * SIDE }, (_, i) => {
    const [red, green, blue] = data.subarray(i * 3, i * 3 + 3);
    return labOf([red as number, green as number, blue as number]);
  });
  const border = borderOf(lab, SIDE, SIDE);
  const ground = medians(border);
  const far = (one: Triple) => Math.hypot(one[0] - ground[0], one[1] - ground[1], one[2] - ground[2]);
  const even = border.filter((one) => far(one) < GROUND_DISTANCE).length / border.length;
  const thing = lab.filter((one) => far(one) > GROUND_DISTANCE);
  const roots = histogram(even > GROUND_SHARE && thing.length > 0 ? thing : lab).map(Math.sqrt);
  const length = Math.hypot(...roots);
  return Uint8Array.from(roots, (root) => roundedToEven((255 * root) / length));
}

/** The first and the last row, then the first and the last column. */
export function borderOf<T>(rows: readonly T[], width: number, height: number): T[] {
  const column = (x: number) => Array.from({ length: height }, (_, y) => rows[y * width + x] as T);
  return [...rows.slice(0, width), ...rows.slice(-width), ...column(0), ...column(width - 1)];
}

/** For each of three numbers separately. */
export function medians(all: readonly Triple[]): Triple {
  const median = (channel: 0 | 1 | 2) => {
    const sorted = Float64Array.from(all, (one) => one[channel]).sort();
    const [low, high] = [(sorted.length - 1) >> 1, sorted.length >> 1];
    return ((sorted[low] as number) + (sorted[high] as number)) / 2;
  };
  return [median(0), median(1), median(2)];
}

function labOf(rgb: Triple): Triple {
  const [r, g, b] = rgb.map((level) => {
    const value = level / 255;
    return value > 0.04045 ? ((value + 0.055) / 1.055) ** 2.4 : value / 12.92;
  }) as [number, number, number];
  const f = (value: number) => (value > 0.008856 ? Math.cbrt(value) : 7.787 * value + 16 / 116);
  const x = f((0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505);
  const y = f(0.2126 * r + 0.7152 * g + 0.0722 * b);
  const z = f((0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089);
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
}

function histogram(lab: readonly Triple[]): number[] {
  const counts = new Array<number>(COLOURS).fill(0);
  const binned = (value: number) => Math.min(Math.max(value / BIN_WIDTH + (BINS >> 1), 0), BINS - 1.001);
  for (const one of lab) {
    const [a, b] = [binned(one[1]), binned(one[2])];
    const light = Math.min(Math.max(one[0] / 100, 0), 1);
    for (const da of [0, 1]) {
      for (const db of [0, 1]) {
        const share = Math.abs(1 - da - (a % 1)) * Math.abs(1 - db - (b % 1));
        const place = ((Math.trunc(a) + da) * BINS + Math.trunc(b) + db) * 2;
        counts[place] = (counts[place] as number) + share * (1 - light);
        counts[place + 1] = (counts[place + 1] as number) + share * light;
      }
    }
  }
  return counts;
}
