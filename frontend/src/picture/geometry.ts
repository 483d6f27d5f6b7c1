import type { Box } from "../endpoint/contract";
import { formatShare } from "../words/format";
import { t } from "../words/messages";

/** A point in fractions of the picture's sides. */
export interface Point {
  x: number;
  y: number;
}

/** Smallest side of a box, as a fraction. */
export const SIDE_MIN = 0.04;

const clamp = (value: number, low: number, high: number) => Math.min(Math.max(value, low), high);

/** Four decimals are a tenth of a pixel on the largest picture that is sent. */
const rounded = (value: number) => Math.round(value * 10_000) / 10_000;

function tidy(left: number, top: number, width: number, height: number): Box {
  const x = clamp(rounded(left), 0, 1);
  const y = clamp(rounded(top), 0, 1);
  return [x, y, Math.min(rounded(width), rounded(1 - x)), Math.min(rounded(height), rounded(1 - y))];
}

/** The box between two corners, or null if it is too small to be meant as one. */
export function boxBetween(a: Point, b: Point): Box | null {
  const [left, right] = [clamp(Math.min(a.x, b.x), 0, 1), clamp(Math.max(a.x, b.x), 0, 1)];
  const [top, bottom] = [clamp(Math.min(a.y, b.y), 0, 1), clamp(Math.max(a.y, b.y), 0, 1)];
  if (right - left < SIDE_MIN || bottom - top < SIDE_MIN) return null;
  return tidy(left, top, right - left, bottom - top);
}

/** The box moved within the picture; its size stays. */
export function moveBox([x, y, width, height]: Box, dx: number, dy: number): Box {
  return tidy(clamp(x + dx, 0, 1 - width), clamp(y + dy, 0, 1 - height), width, height);
}

/** An edge or corner of a box: north, south, west, east. */
export type Edge = "n" | "s" | "w" | "e" | "nw" | "ne" | "sw" | "se";
export const EDGES: readonly Edge[] = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];

/** The box with one edge or corner moved; it neither leaves the picture nor turns inside out. */
export function resizeBox([x, y, width, height]: Box, edge: Edge, dx: number, dy: number): Box {
  let [left, top, right, bottom] = [x, y, x + width, y + height];
  if (edge.includes("w")) left = clamp(left + dx, 0, right - SIDE_MIN);
  if (edge.includes("e")) right = clamp(right + dx, left + SIDE_MIN, 1);
  if (edge.includes("n")) top = clamp(top + dy, 0, bottom - SIDE_MIN);
  if (edge.includes("s")) bottom = clamp(bottom + dy, top + SIDE_MIN, 1);
  return tidy(left, top, right - left, bottom - top);
}

export function isInside([x, y, width, height]: Box, { x: px, y: py }: Point): boolean {
  return px >= x && px <= x + width && py >= y && py <= y + height;
}

/** The box in words, for screen readers. */
export function describeBox([x, y, width, height]: Box): string {
  const percent = (value: number) => formatShare(value, undefined, 0);
  const sides = { width: percent(width), height: percent(height), left: percent(x), top: percent(y) };
  return t("editor.box.is", sides);
}
