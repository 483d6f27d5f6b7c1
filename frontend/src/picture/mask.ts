import type { Box } from "../endpoint/contract";
import type { Point } from "./geometry";

/** Cells along the longer side: fine enough for a hand, coarse enough for few boxes. */
const CELLS = 40;
/** Most boxes in one request. */
export const EXCLUDE_MAX = 64;

/** Which cells of a grid over the picture are painted out. Immutable. */
export interface Mask {
  columns: number;
  rows: number;
  /** Row by row, 1 where painted; `columns × rows` numbers. */
  cells: Uint8Array;
}

/** An empty mask with about square cells on a picture of this width ÷ height. */
export function emptyMask(aspect: number): Mask {
  const columns = aspect >= 1 ? CELLS : Math.max(4, Math.round(CELLS * aspect));
  const rows = aspect >= 1 ? Math.max(4, Math.round(CELLS / aspect)) : CELLS;
  return { columns, rows, cells: new Uint8Array(columns * rows) };
}

export const isEmpty = (mask: Mask | null): boolean => mask === null || !mask.cells.includes(1);

/** The share of the picture that is painted, 0 to 1. */
export const paintedShare = (mask: Mask): number => mask.cells.reduce((sum, cell) => sum + cell, 0) / mask.cells.length;

/**
 * The mask after a brush stroke from one point to another.
 * `radius` is a fraction of the longer side; the cell under the brush's middle is always painted.
 */
export function paint(mask: Mask, from: Point, to: Point, radius: number): Mask {
  const { columns, rows } = mask;
  const cells = mask.cells.slice();
  const reach = radius * Math.max(columns, rows);
  const [ax, ay] = [from.x * columns, from.y * rows];
  const [bx, by] = [to.x * columns, to.y * rows];
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      if (distanceToSegment(column + 0.5, row + 0.5, ax, ay, bx, by) <= reach) cells[row * columns + column] = 1;
    }
  }
  const [column, row] = [Math.floor(bx), Math.floor(by)];
  if (column >= 0 && column < columns && row >= 0 && row < rows) cells[row * columns + column] = 1;
  return { columns, rows, cells };
}

/** At most 64 boxes that cover the painted cells: exactly, or if that needs more, with cells joined four to one. */
export function boxesOf(mask: Mask | null): Box[] {
  if (mask === null) return [];
  let coarse = mask;
  let scale = 1;
  let found = rectangles(coarse);
  while (found.length > EXCLUDE_MAX) {
    coarse = halved(coarse);
    scale *= 2;
    found = rectangles(coarse);
  }
  return found.map(({ column, row, width, height }) => {
    const edge = (cell: number, cells: number) => Math.round((Math.min(cell * scale, cells) / cells) * 10_000);
    const [left, right] = [edge(column, mask.columns), edge(column + width, mask.columns)];
    const [top, bottom] = [edge(row, mask.rows), edge(row + height, mask.rows)];
    return [left, top, right - left, bottom - top].map((part) => part / 10_000) as Box;
  });
}

interface Rectangle {
  column: number;
  row: number;
  width: number;
  height: number;
}

/** Rectangles that cover the painted cells once each, the largest possible one from each first free corner. */
function rectangles({ columns, rows, cells }: Mask): Rectangle[] {
  const free = { columns, rows, cells: cells.slice() };
  const found: Rectangle[] = [];
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      if (free.cells[row * columns + column] !== 1) continue;
      const rectangle = largestFrom(free, column, row);
      for (let y = row; y < row + rectangle.height; y++) {
        free.cells.fill(0, y * columns + column, y * columns + column + rectangle.width);
      }
      found.push(rectangle);
    }
  }
  return found;
}

function largestFrom({ columns, rows, cells }: Mask, column: number, row: number): Rectangle {
  let best = { column, row, width: 1, height: 1 };
  let width = columns - column;
  for (let height = 1; row + height <= rows; height++) {
    let run = 0;
    while (run < width && cells[(row + height - 1) * columns + column + run] === 1) run++;
    if (run === 0) break;
    width = run;
    if (width * height > best.width * best.height) best = { column, row, width, height };
  }
  return best;
}

function halved({ columns, rows, cells }: Mask): Mask {
  const [wide, high] = [Math.ceil(columns / 2), Math.ceil(rows / 2)];
  const coarse = new Uint8Array(wide * high);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      if (cells[row * columns + column]) coarse[(row >> 1) * wide + (column >> 1)] = 1;
    }
  }
  return { columns: wide, rows: high, cells: coarse };
}

function distanceToSegment(px: number, py: number, ax: number, ay: number, bx: number, by: number): number {
  const [dx, dy] = [bx - ax, by - ay];
  const length = dx * dx + dy * dy;
  const t = length === 0 ? 0 : Math.min(Math.max(((px - ax) * dx + (py - ay) * dy) / length, 0), 1);
  return Math.hypot(px - ax - t * dx, py - ay - t * dy);
}
