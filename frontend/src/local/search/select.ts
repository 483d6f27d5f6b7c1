/** Selection: the least of many without sorting all. */

/**
 * The rows of the least keys, in order; at most `want`.
 *
 * @param among Rows, or [start, stop) of them.
 * @param key A number of a row by which most rows are skipped; `compare` orders rows with the same key.
 * @param compare Of rows of the same key.
 * @param allowed (n,) 1 for rows that may be taken; null: all.
 */
export function leastRows(
  among: ReadonlySet<number> | readonly [start: number, stop: number],
  key: (row: number) => number,
  want: number,
  compare: (a: number, b: number) => number,
  allowed: Uint8Array | null,
): number[] {
  const count = "size" in among ? among.size : among[1] - among[0];
  if (want <= 0 || count <= 0) return [];
  const heap = new Heap(Math.min(want, count));
  const each = (take: (row: number, key: number) => void): void => {
    if ("size" in among) {
      for (const row of among) if (!allowed || allowed[row]) take(row, key(row));
    } else for (let row = among[0]; row < among[1]; row += 1) if (!allowed || allowed[row]) take(row, key(row));
  };
  each((_, value) => heap.offer(value));
  const limit = heap.isFull ? heap.greatest : Number.POSITIVE_INFINITY;
  const found: [row: number, key: number][] = [];
  each((row, value) => {
    if (value <= limit) found.push([row, value]);
  });
  found.sort(([a, m], [b, n]) => (m === n ? compare(a, b) : m - n));
  return found.slice(0, want).map(([row]) => row);
}

/** Keeps the least of the numbers that it is offered, the greatest of them on top. */
class Heap {
  private readonly values: Float64Array;
  private size = 0;

  constructor(capacity: number) {
    this.values = new Float64Array(capacity);
  }

  get isFull(): boolean {
    return this.size === this.values.length;
  }

  get greatest(): number {
    return this.values[0] as number;
  }

  offer(value: number): void {
    const { values } = this;
    if (!this.isFull) {
      let at = this.size++;
      for (let up = (at - 1) >> 1; at > 0 && (values[up] as number) < value; at = up, up = (at - 1) >> 1) {
        values[at] = values[up] as number;
      }
      values[at] = value;
    } else if (value < this.greatest) {
      let at = 0;
      for (let down = 1; down < this.size; down = 2 * at + 1) {
        if (down + 1 < this.size && (values[down + 1] as number) > (values[down] as number)) down += 1;
        if ((values[down] as number) <= value) break;
        values[at] = values[down] as number;
        at = down;
      }
      values[at] = value;
    }
  }
}
