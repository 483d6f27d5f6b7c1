/** Sums over numbers in rows. Sums are computed in double precision, and stored in single as on the server. */

export type Floats = Float32Array<ArrayBuffer>;

/** Inner product of `length` floats, from an offset in each. For one kind of array only: engines make that fast. */
export function dot(a: Floats, b: Floats, length = b.length, from = 0, other = 0): number {
  let at = 0;
  // Four sums, so that no product waits for the previous one.
  let p = 0;
  let q = 0;
  let r = 0;
  let s = 0;
  for (; at < length - 3; at += 4) {
    p += (a[from + at] as number) * (b[other + at] as number);
    q += (a[from + at + 1] as number) * (b[other + at + 1] as number);
    r += (a[from + at + 2] as number) * (b[other + at + 2] as number);
    s += (a[from + at + 3] as number) * (b[other + at + 3] as number);
  }
  for (; at < length; at += 1) p += (a[from + at] as number) * (b[other + at] as number);
  return p + q + r + s;
}

/** The length of a vector of any numbers. */
export function lengthOf(vector: ArrayLike<number>): number {
  let sum = 0;
  for (let at = 0; at < vector.length; at += 1) sum += (vector[at] as number) ** 2;
  return Math.sqrt(sum);
}

/** Length 1; zeros stay zeros. */
export function unit(vector: ArrayLike<number>): Floats {
  const length = lengthOf(vector) || 1;
  return Float32Array.from(vector, (value) => value / length);
}

/** Rows (n, m), each at length 1; a zero row stays zero. */
export function unitRows(rows: Floats, m: number): Floats {
  const found = new Float32Array(rows.length);
  for (let from = 0; from < rows.length; from += m) {
    const length = Math.sqrt(dot(rows, rows, m, from, from)) || 1;
    for (let at = from; at < from + m; at += 1) found[at] = (rows[at] as number) / length;
  }
  return found;
}

export const minus = (a: ArrayLike<number>, b: ArrayLike<number>): Floats =>
  Float32Array.from({ length: b.length }, (_, at) => (a[at] as number) - (b[at] as number));

/** Rows (n, m), each less a vector (m,). */
export function minusRows(rows: Floats, vector: Floats): Floats {
  const found = new Float32Array(rows.length);
  for (let at = 0, place = 0; at < rows.length; at += 1, place = place + 1 === vector.length ? 0 : place + 1) {
    found[at] = (rows[at] as number) - (vector[place] as number);
  }
  return found;
}

export const mean = (values: ArrayLike<number>, from = 0, to = values.length): number => {
  let sum = 0;
  for (let at = from; at < Math.min(to, values.length); at += 1) sum += values[at] as number;
  return sum / (Math.min(to, values.length) - from);
};

/** The mean of rows (n, m): (m,). */
export function meanRow(rows: Floats, m: number): Floats {
  const sums = new Float64Array(m);
  for (let at = 0; at < rows.length; at += 1) sums[at % m] = (sums[at % m] as number) + (rows[at] as number);
  return Float32Array.from(sums, (sum) => sum / (rows.length / m));
}

export function deviation(values: ArrayLike<number>): number {
  const middle = mean(values);
  let sum = 0;
  for (let at = 0; at < values.length; at += 1) sum += ((values[at] as number) - middle) ** 2;
  return Math.sqrt(sum / values.length);
}

export const sigmoid = (odds: number): number => 1 / (1 + Math.exp(-Math.min(60, Math.max(-60, odds))));

export const clip = (value: number, low: number, high: number): number => Math.min(high, Math.max(low, value));

/** Python's `round`: to so many digits, ties to even as far as doubles have ties. */
export function rounded(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}

/** Positions of values in descending order; equal ones keep theirs. */
export const fallingOrder = (values: ArrayLike<number>): number[] =>
  Array.from({ length: values.length }, (_, at) => at).sort(
    (a, b) => (values[b] as number) - (values[a] as number) || a - b,
  );
