import { describe, expect, it } from "vitest";
import type { Box } from "../src/endpoint/contract";
import { boxBetween, describeBox, EDGES, isInside, moveBox, resizeBox, SIDE_MIN } from "../src/picture/geometry";

const isWithinPicture = ([x, y, width, height]: Box) =>
  x >= 0 && y >= 0 && x + width <= 1 + 1e-9 && y + height <= 1 + 1e-9 && width > 0 && height > 0;

describe("a box between two corners", () => {
  it("is the same whichever corner comes first", () => {
    const [a, b] = [
      { x: 0.1, y: 0.7 },
      { x: 0.6, y: 0.2 },
    ];
    expect(boxBetween(a, b)).toEqual([0.1, 0.2, 0.5, 0.5]);
    expect(boxBetween(b, a)).toEqual([0.1, 0.2, 0.5, 0.5]);
  });

  it("ends where the picture ends", () => {
    expect(boxBetween({ x: -2, y: 0.5 }, { x: 0.5, y: 9 })).toEqual([0, 0.5, 0.5, 0.5]);
  });

  it("is none where the hand hardly moved", () => {
    expect(boxBetween({ x: 0.5, y: 0.5 }, { x: 0.52, y: 0.9 })).toBeNull();
  });
});

it("moving keeps the size, and the box within the picture", () => {
  expect(moveBox([0.2, 0.2, 0.3, 0.4], 0.1, -0.1)).toEqual([0.3, 0.1, 0.3, 0.4]);
  expect(moveBox([0.2, 0.2, 0.3, 0.4], 9, 9)).toEqual([0.7, 0.6, 0.3, 0.4]);
  expect(moveBox([0.2, 0.2, 0.3, 0.4], -9, -9)).toEqual([0, 0, 0.3, 0.4]);
});

describe("resizing", () => {
  it("moves only the edges that are held", () => {
    expect(resizeBox([0.2, 0.2, 0.4, 0.4], "e", 0.1, 0.1)).toEqual([0.2, 0.2, 0.5, 0.4]);
    expect(resizeBox([0.2, 0.2, 0.4, 0.4], "nw", -0.1, 0.1)).toEqual([0.1, 0.3, 0.5, 0.3]);
  });

  it.each(EDGES)("by %s neither leaves the picture nor turns inside out", (edge) => {
    for (const far of [-5, -0.3, 0.3, 5]) {
      const box = resizeBox([0.3, 0.3, 0.3, 0.3], edge, far, far);
      expect(isWithinPicture(box)).toBe(true);
      expect(Math.min(box[2], box[3])).toBeGreaterThanOrEqual(SIDE_MIN - 1e-9);
    }
  });
});

it("knows what lies within", () => {
  expect(isInside([0.2, 0.2, 0.2, 0.2], { x: 0.3, y: 0.4 })).toBe(true);
  expect(isInside([0.2, 0.2, 0.2, 0.2], { x: 0.3, y: 0.41 })).toBe(false);
});

it("says where a box is", () => {
  expect(describeBox([0.1, 0.2, 0.5, 0.25])).toBe("Box 50% wide and 25% high, 10% from the left, 20% from the top");
});
