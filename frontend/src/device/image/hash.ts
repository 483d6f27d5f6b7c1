import { roundedToEven } from "../../bytes/float16";
import { type Pixels, resize } from "./pixels";

/** As in visor/near_duplicates/perceptual_hash.py; fingerprint.py beside it says what each byte is, this one why every rounding counts. */
const CELLS = 12;
const CHROMA_CELLS = 3;
const LUMA_BITS = 5;
const PLANE = 96;
const EDGE = 256;
const KEPT = 64;
const WAVES = 16;

const COSINES = Float32Array.from({ length: KEPT * WAVES }, (_, place) => {
  const [j, i] = [Math.floor(place / WAVES), place % WAVES];
  return Math.fround(Math.sqrt(2 / 64)) * Math.cos((Math.PI / 2 / 64) * (i + 1) * (2 * j + 1));
});

/** The 140 bytes by which the same picture is found again: PDQ, and a sketch of its light and colours. */
export function perceptualHash(pixels: Pixels): Uint8Array {
  const planes = ycbcrPlanes(pixels);
  const luma = cellMeans(planes[0], CELLS).map((mean) => Math.min(mean / (256 >> LUMA_BITS), (1 << LUMA_BITS) - 1));
  const bits = [...luma].flatMap((level) => [4, 3, 2, 1, 0].map((bit) => ((level >> bit) & 1) === 1));
  const chroma = [planes[1], planes[2]].flatMap((plane) => [...cellMeans(plane, CHROMA_CELLS)].map(roundedToEven));
  return Uint8Array.from([...pdq(pixels), ...packed(bits), ...chroma]);
}

function pdq(pixels: Pixels): Uint8Array {
  const { data } = resize(pixels, EDGE, EDGE, "bilinear", undefined, 2);
  const luma = new Float32Array(EDGE * EDGE).map((_, i) => {
    const at = i * 3;
    return (data[at] as number) * 0.299 + (data[at + 1] as number) * 0.587 + (data[at + 2] as number) * 0.114;
  });
  const blurred = boxed(boxed(luma));
  const small = samples(boxed(samples(boxed(blurred))));
  const waves = new Float32Array(WAVES * KEPT);
  for (let j = 0; j < KEPT; j++) {
    for (let i = 0; i < WAVES; i++) {
      for (let x = 0; x < KEPT; x++) {
        const term = Math.fround((COSINES[j * WAVES + i] as number) * (small[j * KEPT + x] as number));
        waves[i * KEPT + x] = (waves[i * KEPT + x] as number) + term;
      }
    }
  }
  const both = new Float32Array(WAVES * WAVES);
  for (let j = 0; j < KEPT; j++) {
    for (let i = 0; i < WAVES; i++) {
      for (let k = 0; k < WAVES; k++) {
        const term = Math.fround((waves[i * KEPT + j] as number) * (COSINES[j * WAVES + k] as number));
        both[i * WAVES + k] = (both[i * WAVES + k] as number) + term;
      }
    }
  }
  const median = both.slice().sort()[127] as number;
  return packed([...both].map((wave) => wave > median).reverse());
}

/** Means of each value and the next along rows of 256, as columns; from a running sum of 32 bits, as the reference. */
function boxed(rows: Float32Array): Float32Array {
  const height = rows.length / EDGE;
  const means = new Float32Array(rows.length);
  for (let y = 0; y < height; y++) {
    const at = (x: number) => rows[y * EDGE + x] as number;
    let sum = Math.fround(at(0) + at(1));
    means[y] = sum / 2;
    for (let x = 1; x < EDGE - 1; x++) {
      sum = Math.fround(Math.fround(sum + at(x + 1)) - at(x - 1));
      means[x * height + y] = sum / 2;
    }
    means[(EDGE - 1) * height + y] = sum - at(EDGE - 2);
  }
  return means;
}

/** Every fourth of 256 rows, from the third on. */
function samples(rows: Float32Array): Float32Array {
  const width = rows.length / EDGE;
  const kept = new Float32Array(KEPT * width);
  for (let y = 0; y < KEPT; y++) kept.set(rows.subarray((4 * y + 2) * width, (4 * y + 3) * width), y * width);
  return kept;
}

/** Pillow's tables with 6 fractional bits: luma is rounded, colours are truncated. */
const part = (weight: number, value: number) => Math.trunc(weight * 64 * value + 0.5);

function ycbcrPlanes(pixels: Pixels): [Float32Array, Float32Array, Float32Array] {
  const { data } = resize(pixels, PLANE, PLANE, "bilinear", undefined, 3);
  const count = PLANE * PLANE;
  const planes: [Float32Array, Float32Array, Float32Array] = [
    new Float32Array(count),
    new Float32Array(count),
    new Float32Array(count),
  ];
  for (let i = 0; i < count; i++) {
    const [r, g, b] = [data[i * 3] as number, data[i * 3 + 1] as number, data[i * 3 + 2] as number];
    planes[0][i] = (part(0.299, r) + part(0.587, g) + part(0.114, b)) >> 6;
    planes[1][i] = ((part(-0.16874, r) + part(-0.33126, g) + part(0.5, b)) >> 6) + 128;
    planes[2][i] = ((part(0.5, r) + part(-0.41869, g) + part(-0.08131, b)) >> 6) + 128;
  }
  return planes;
}

function cellMeans(plane: Float32Array, cells: number): Float32Array {
  const edge = PLANE / cells;
  const sums = new Float32Array(cells * cells);
  for (let i = 0; i < plane.length; i++) {
    const cell = Math.floor(i / PLANE / edge) * cells + Math.floor((i % PLANE) / edge);
    sums[cell] = (sums[cell] as number) + (plane[i] as number);
  }
  return sums.map((sum) => sum / (edge * edge));
}

function packed(bits: readonly boolean[]): Uint8Array {
  const bytes = new Uint8Array(bits.length / 8);
  bits.forEach((bit, i) => {
    if (bit) bytes[i >> 3] = (bytes[i >> 3] as number) | (0x80 >> (i & 7));
  });
  return bytes;
}
