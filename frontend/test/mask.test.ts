import { describe, expect, it } from "vitest";
import { boxesOf, EXCLUDE_MAX, emptyMask, isEmpty, type Mask, paint, paintedShare } from "../src/picture/mask";

/** A repeatable stream of numbers in [0, 1): mulberry32. */
function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const covers = (mask: Mask, column: number, row: number) =>
  boxesOf(mask).filter(([x, y, width, height]) => {
    const [px, py] = [(column + 0.5) / mask.columns, (row + 0.5) / mask.rows];
    return px > x && px < x + width && py > y && py < y + height;
  }).length;

describe("a mask", () => {
  it.each([
    [1, 40, 40],
    [2, 40, 20],
    [0.5, 20, 40],
    [100, 40, 4],
  ])("for a picture %s times as wide as high has about square cells", (aspect, columns, rows) => {
    expect(emptyMask(aspect)).toMatchObject({ columns, rows });
  });

  it("is empty until it is painted", () => {
    const mask = emptyMask(1);
    expect(isEmpty(mask)).toBe(true);
    expect(boxesOf(mask)).toEqual([]);
    const painted = paint(mask, { x: 0.5, y: 0.5 }, { x: 0.5, y: 0.5 }, 0);
    expect(isEmpty(painted)).toBe(false);
    expect(isEmpty(mask)).toBe(true);
  });

  it("takes the whole stroke, not only its ends", () => {
    const mask = paint(emptyMask(1), { x: 0.1, y: 0.5 }, { x: 0.9, y: 0.5 }, 0.05);
    expect(mask.cells[20 * 40 + 20]).toBe(1);
    expect(paintedShare(mask)).toBeGreaterThan(0.08);
    expect(paintedShare(mask)).toBeLessThan(0.11);
  });

  it("ignores what is painted beside the picture", () => {
    expect(isEmpty(paint(emptyMask(1), { x: 2, y: 2 }, { x: 3, y: 3 }, 0.05))).toBe(true);
  });
});

describe("the boxes of a mask", () => {
  it("are one where the paint is one rectangle", () => {
    const mask = emptyMask(1);
    for (let row = 10; row < 20; row++) mask.cells.fill(1, row * 40 + 4, row * 40 + 12);
    expect(boxesOf(mask)).toEqual([[0.1, 0.25, 0.2, 0.25]]);
  });

  it("cover each painted cell once and nothing else, while few are enough", () => {
    const random = numbers(7);
    for (let round = 0; round < 10; round++) {
      let mask = emptyMask(0.5 + random() * 1.5);
      for (let stroke = 0; stroke < 2; stroke++) {
        const from = { x: random(), y: random() };
        mask = paint(mask, from, { x: from.x + 0.2 * random(), y: from.y }, 0.06);
      }
      for (let row = 0; row < mask.rows; row++) {
        for (let column = 0; column < mask.columns; column++) {
          expect(covers(mask, column, row)).toBe(mask.cells[row * mask.columns + column]);
        }
      }
    }
  });

  it("are never more than a request takes, and still cover all paint", () => {
    const random = numbers(3);
    for (const aspect of [1, 1.37, 0.73]) {
      const mask = emptyMask(aspect);
      mask.cells.forEach((_, index) => {
        mask.cells[index] = random() < 0.3 ? 1 : 0;
      });
      const boxes = boxesOf(mask);
      expect(boxes.length).toBeLessThanOrEqual(EXCLUDE_MAX);
      for (const [x, y, width, height] of boxes) {
        expect(x + width).toBeLessThanOrEqual(1 + 1e-9);
        expect(y + height).toBeLessThanOrEqual(1 + 1e-9);
      }
      mask.cells.forEach((cell, index) => {
        if (cell) expect(covers(mask, index % mask.columns, Math.floor(index / mask.columns))).toBe(1);
      });
    }
  });
});
