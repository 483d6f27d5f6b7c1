/**
 * Aligns a query with the sketches of candidates in every way that an edit would have moved it: cropped, framed,
 * captioned, mirrored, turned (`near_duplicates/verdict.py`, where each step is explained).
 */

import type { Constants } from "../format/manifest";
import type { Floats } from "../search/linear";
import { type Grey, resized, rotated } from "./grey";
import { cellMeans, type Planes } from "./sketch";

type Numbers = Constants["verdict"];
type Interval = readonly [low: number, high: number];
type Rectangle = readonly [x: Interval, y: Interval];

/** The query's cells under one hypothesis, less their mean, and which of them it covers. */
interface Template {
  cells: Float64Array;
  mask: Uint8Array;
  count: number;
  contrast: number;
  rectangle: Rectangle | null;
}

/** What is known about a candidate: luma of its cells around a middle grey, and their squares. */
interface Candidate {
  around: Float64Array;
  squares: Float64Array;
}

export class Aligner {
  private hypotheses: Template[] | null = null;

  constructor(
    readonly planes: Planes,
    private readonly numbers: Numbers,
  ) {}

  /** How well a candidate's luma cells fit under the hypothesis with the best correlation, -1 to 1. */
  bestFit(luma: Floats, enough: number): number {
    this.hypotheses ??= this.made();
    const candidate = candidateOf(luma);
    let [best, at]: [number, Template | null] = [-1, null];
    for (const template of this.hypotheses) {
      const found = this.correlation(template, candidate);
      if (found > best) [best, at] = [found, template];
    }
    if (!at || best <= enough - this.numbers.refined_within) return best;
    const fit = this.fit(at, candidate, best);
    return at.rectangle && fit < enough ? Math.max(fit, this.refined(at.rectangle, candidate)) : fit;
  }

  /** The correlation; less if edges correlate less, much luma stays unexplained, or the contrast differs. */
  private fit(template: Template, { around, squares }: Candidate, correlation: number): number {
    const { cells, mask, count: covered, contrast } = template;
    const { cells: n, contrast_floor } = this.numbers;
    const { edges_slack: slack = 2, rest_scale: scale = Infinity, small_rest_scale: small = Infinity } = this.numbers;
    const { gain_max: most = Infinity, contrast_large: large = 0 } = this.numbers;
    let [mine, theirs, both, count] = [0, 0, 0, 0];
    let [sum, square] = [0, 0];
    for (let at = 0; at < cells.length; at += 1) {
      if (mask[at]) [sum, square] = [sum + (around[at] as number), square + (squares[at] as number)];
      for (const next of [at + n, (at + 1) % n ? at + 1 : cells.length]) {
        if (next >= cells.length || !mask[at] || !mask[next]) continue;
        const a = (cells[next] as number) - (cells[at] as number);
        const b = (around[next] as number) - (around[at] as number);
        [mine, theirs, both, count] = [mine + a * a, theirs + b * b, both + a * b, count + 1];
      }
    }
    const floor = count * contrast_floor ** 2;
    const edges = both / Math.sqrt(Math.max(mine, floor) * Math.max(theirs, floor));
    const variance = Math.max(square / covered - (sum / covered) ** 2, 0);
    const gain = Math.max(contrast, contrast_floor) / Math.max(Math.sqrt(variance), contrast_floor);
    if (gain > most || gain < 1 / most) return 0;
    const rest = Math.sqrt(variance * Math.max(0, 1 - correlation ** 2));
    const close = variance >= large ** 2 ? 1 - rest / small : -1;
    return Math.min(correlation, 1 - rest / scale, Math.max(edges + slack, close));
  }

  private correlation({ cells, mask, count, contrast }: Template, { around, squares }: Candidate): number {
    const { covered_min, contrast_floor: floor } = this.numbers;
    if (count < covered_min * cells.length) return -1;
    let sum = 0;
    let square = 0;
    let product = 0;
    for (let at = 0; at < cells.length; at += 1) {
      if (mask[at]) {
        sum += around[at] as number;
        square += squares[at] as number;
        product += (cells[at] as number) * (around[at] as number);
      }
    }
    const deviation = Math.sqrt(Math.max(square / count - (sum / count) ** 2, 0));
    return product / count / (Math.max(contrast, floor) * Math.max(deviation, floor));
  }

  /** The best fit near a hypothesis: both ends of both intervals are moved in smaller steps. */
  private refined([x, y]: Rectangle, candidate: Candidate): number {
    let best = -1;
    let near: Rectangle = [x, y];
    for (const step of [0.02, 0.01, 0.005]) {
      let [found, at]: [number, Template | null] = [-2, null];
      for (const template of this.grid(moved(near[0], step), moved(near[1], step))) {
        const correlation = this.correlation(template, candidate);
        if (correlation > found) [found, at] = [correlation, template];
      }
      if (!at?.rectangle) continue;
      near = at.rectangle;
      best = Math.max(best, this.fit(at, candidate, found));
    }
    return best;
  }

  private made(): Template[] {
    const grids = [borders(), ...crops()].flatMap(([xs, ys]) => this.grid(xs, ys));
    return [...grids, ...this.covered(), ...this.turned(), ...this.rotated()];
  }

  /** The query under every interval across with every interval down. */
  private grid(xs: readonly Interval[], ys: readonly Interval[], plane: Floats = this.planes.luma): Template[] {
    return cellsUnder(plane, this.numbers.plane, this.numbers.cells, xs, ys).map(({ cells, mask, rectangle }) =>
      templateOf(cells, mask, rectangle),
    );
  }

  /** The query as it is, with its lower or upper rows left out: a caption covers them. */
  private covered(): Template[] {
    const { cells, plane } = this.numbers;
    const means = cellMeans(this.planes.luma, plane, cells);
    const rowOf = (cell: number) => Math.floor(cell / cells);
    return [1, 2, 3, 4].flatMap((n) =>
      [(cell: number) => rowOf(cell) < cells - n, (cell: number) => rowOf(cell) >= n].map((isIn) =>
        templateOf(
          means,
          Uint8Array.from(means, (_, cell) => Number(isIn(cell))),
        ),
      ),
    );
  }

  /** The mirrored and the quarter-turned query. */
  private turned(): Template[] {
    const { cells, plane } = this.numbers;
    const means = cellMeans(Float32Array.from(this.planes.grey.levels), plane, cells);
    const last = cells - 1;
    const places: ((x: number, y: number) => [number, number])[] = [
      (x, y) => [last - x, y],
      (x, y) => [x, last - y],
      (x, y) => [last - y, x],
      (x, y) => [last - x, last - y],
      (x, y) => [y, last - x],
      (x, y) => [y, x],
      (x, y) => [last - y, last - x],
    ];
    return places.map((from) => {
      const turned = means.map((_, cell) => {
        const [x, y] = from(cell % cells, Math.floor(cell / cells));
        return means[y * cells + x] as number;
      });
      return templateOf(turned, new Uint8Array(turned.length).fill(1));
    });
  }

  /** The query turned back by each angle, with the candidate in its middle in the sizes that three usual ways leave. */
  private rotated(): Template[] {
    const { plane, cells, angles } = this.numbers;
    const small = this.planes.grey;
    const { width, height } = small;
    const everywhere: Grey = { ...small, levels: new Uint8Array(small.levels.length).fill(255) };
    return angles.flatMap((angle) => {
      const back = rotated(small, -angle);
      const [luma, valid] = [resized(back, plane), resized(rotated(everywhere, -angle), plane)] as [Floats, Floats];
      const c = Math.cos((angle * Math.PI) / 180);
      const s = Math.abs(Math.sin((angle * Math.PI) / 180));
      const cut = c + (s * Math.max(width, height)) / Math.min(width, height);
      const habits = [
        [width, height],
        [(width * c - height * s) / (c * c - s * s), (height * c - width * s) / (c * c - s * s)],
        [width * cut, height * cut],
      ] as [number, number][];
      return habits.map(([across, down]) => {
        const middle = (size: number, whole: number): Interval => [0.5 - size / whole / 2, 0.5 + size / whole / 2];
        const [xs, ys] = [[middle(across, back.width)], [middle(down, back.height)]];
        const [found] = cellsUnder(luma, plane, cells, xs, ys) as [Cells];
        const [whole] = cellsUnder(valid, plane, cells, xs, ys) as [Cells];
        return templateOf(
          found.cells,
          found.mask.map((isIn, cell) => (isIn && (whole.cells[cell] as number) > 250 ? 1 : 0)),
        );
      });
    });
  }
}

function candidateOf(luma: Floats): Candidate {
  const around = Float64Array.from(luma, (value) => value - 128);
  return { around, squares: around.map((value) => value * value) };
}

function templateOf(cells: Floats, mask: Uint8Array, rectangle: Rectangle | null = null): Template {
  let [sum, count] = [0, 0];
  for (let at = 0; at < cells.length; at += 1) {
    if (mask[at]) [sum, count] = [sum + (cells[at] as number), count + 1];
  }
  const middle = sum / Math.max(count, 1);
  const centred = Float64Array.from(cells, (value, at) => (mask[at] ? value - middle : 0));
  const squares = centred.reduce((total, value) => total + value * value, 0);
  return { cells: centred, mask, count, contrast: Math.sqrt(squares / Math.max(count, 1)), rectangle };
}

interface Cells {
  cells: Floats;
  mask: Uint8Array;
  rectangle: Rectangle;
}

/** Means of a plane's cells under rectangles, x running fastest; points outside the plane count as 0. */
function cellsUnder(plane: Floats, edge: number, n: number, xs: readonly Interval[], ys: readonly Interval[]): Cells[] {
  const across = xs.map((interval) => edgesOf(interval, edge, n));
  const line = new Float64Array(edge + 1);
  return ys.flatMap((y) => {
    const down = edgesOf(y, edge, n);
    // Of each row of cells, the mean over its height, summed up along its width.
    const sums = Array.from({ length: n }, (_, row) => {
      const means = meansOver(plane, edge, down[row] as number, down[row + 1] as number);
      line[0] = 0;
      for (let at = 0; at < edge; at += 1) line[at + 1] = (line[at] as number) + (means[at] as number);
      return line.slice();
    });
    const isInside = (ends: Float64Array, at: number): boolean =>
      (ends[at] as number) >= -0.1 && (ends[at + 1] as number) <= edge + 0.1;
    return xs.map((x, number) => {
      const ends = across[number] as Float64Array;
      const cells = new Float32Array(n * n);
      const mask = new Uint8Array(n * n);
      for (let row = 0, at = 0; row < n; row += 1) {
        for (let column = 0; column < n; column += 1, at += 1) {
          const [from, to] = [ends[column] as number, ends[column + 1] as number];
          const along = sums[row] as Float64Array;
          cells[at] = (upTo(along, to) - upTo(along, from)) / (to - from);
          mask[at] = isInside(down, row) && isInside(ends, column) ? 1 : 0;
        }
      }
      return { cells, mask, rectangle: [x, y] as const };
    });
  });
}

/** The ends of cells, in pixels. */
const edgesOf = ([low, high]: Interval, edge: number, n: number): Float64Array =>
  Float64Array.from({ length: n + 1 }, (_, at) => (low + ((high - low) * at) / n) * edge);

/** A sum up to a position between two pixels. */
function upTo(sums: Float64Array, place: number): number {
  const within = Math.min(sums.length - 1, Math.max(0, place));
  const whole = Math.min(Math.floor(within), sums.length - 2);
  const [a, b] = [sums[whole] as number, sums[whole + 1] as number];
  return a + (b - a) * (within - whole);
}

/** The mean of each column from one height to another; rows outside the plane count as 0. */
function meansOver(plane: Floats, edge: number, from: number, to: number): Float64Array {
  const sums = new Float64Array(edge);
  for (let y = Math.max(0, Math.floor(from)); y < Math.min(edge, Math.ceil(to)); y += 1) {
    const share = (Math.min(to, y + 1) - Math.max(from, y)) / (to - from);
    for (let x = 0; x < edge; x += 1) sums[x] = (sums[x] as number) + share * (plane[y * edge + x] as number);
  }
  return sums;
}

type Intervals = readonly [xs: readonly Interval[], ys: readonly Interval[]];

/** The query shows the candidate with a border, or as it is: sides alike, above and below independently. */
function borders(): Intervals {
  const sides = [0, 0.03, 0.06, 0.09, 0.12, 0.16, 0.2];
  const ends = [0, 0.03, 0.06, 0.09, 0.12, 0.15, 0.18, 0.22, 0.26, 0.3];
  return [
    sides.map((side): Interval => [side, 1 - side]),
    ends.flatMap((top) => ends.map((low): Interval => [top, 1 - low])),
  ];
}

/** The query is a window of the candidate: of about its shape, or cut at the sides only, or above and below only. */
function crops(): Intervals[] {
  const sizes = [0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1];
  const alike = sizes.flatMap((width) => [width - 0.05, width, width + 0.05].map((height) => [width, height]));
  const cut = sizes.slice(0, -2).flatMap((size) => [
    [size, 1],
    [1, size],
  ]);
  const shapes = [...alike.filter(([, height]) => (height as number) < 1.01), ...cut] as [number, number][];
  return shapes
    .filter(([width, height]) => width !== 1 || height !== 1)
    .map(([width, height]) => [windows(width), windows(height)]);
}

/** Where the candidate is if the query is a window of this much of it, in steps of about 4 % of the candidate. */
function windows(size: number): Interval[] {
  const count = Math.max(1, Math.round((1 - size) / 0.04) + 1);
  return Array.from({ length: count }, (_, at) => {
    const start = count === 1 ? 0 : (at * (1 - size)) / (count - 1);
    return [-start / size, (1 - start) / size];
  });
}

function moved([low, high]: Interval, step: number): Interval[] {
  return [-1, 0, 1].flatMap((a) => [-1, 0, 1].map((b): Interval => [low + a * step, high + b * step]));
}
