/** IEEE 754 half precision, which browsers' typed arrays did not have for a long time. */

const FLOAT = new Float32Array(1);
const BITS = new Uint32Array(FLOAT.buffer);

/** The number that 16 bits represent. */
function halfToNumber(half: number): number {
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  const sign = half & 0x8000 ? -1 : 1;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

let table: Float32Array<ArrayBuffer> | null = null;

/** Halves as floats. All 65,536 come from a table: vectors have millions of them. */
export function fromHalves(halves: Uint16Array): Float32Array<ArrayBuffer> {
  table ??= Float32Array.from({ length: 0x10000 }, (_, half) => halfToNumber(half));
  const found = new Float32Array(halves.length);
  for (let at = 0; at < halves.length; at += 1) found[at] = table[halves[at] as number] as number;
  return found;
}

/** Floats as halves, rounded to the nearest, ties to even, as NumPy rounds. */
export function toHalves(floats: ArrayLike<number>): Uint16Array<ArrayBuffer> {
  return Uint16Array.from(floats, numberToHalf);
}

function numberToHalf(value: number): number {
  FLOAT[0] = value;
  const bits = BITS[0] as number;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x7f800000) return sign | 0x7c00 | (magnitude > 0x7f800000 ? 0x200 : 0);
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  // Below the least normal half the step is 2^-24 throughout.
  if (magnitude < 0x38800000) return sign | roundedToEven(Math.abs(FLOAT[0] as number) * 2 ** 24);
  const rounded = magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1);
  return sign | (rounded >>> 13);
}

/** The nearest whole number, ties to even. */
export function roundedToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Bytes, at any offset, as little-endian halves. */
export function halvesOf(bytes: Uint8Array): Uint16Array<ArrayBuffer> {
  return new Uint16Array(bytes.slice().buffer);
}
