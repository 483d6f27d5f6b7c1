import type { Box } from "../endpoint/contract";
import { resizedPlane } from "./image/pixels";
import { add, type FeatureMap } from "./vector";

/** As in visor/search/heat.py. */
export const GRID = 16;
const LOW = 0.5;
const REGIONS_MAX = 4;
const LEVELS = [0.3, 0.45, 0.6, 0.75];
const AREA = [0.03, 0.8] as const;
const OVERLAP_MAX = 0.35;
const GAIN_MIN = 0.2;

/** Means of the channels of a map over its places. */
export function meansOf(map: FeatureMap): Float32Array {
  const places = map.data.length / map.channels;
  return Float32Array.from(
    totals(map, (value) => value),
    (sum) => sum / places,
  );
}

/** Sums of each channel of a map over its places. */
function totals({ channels, data }: FeatureMap, counted: (value: number) => number): Float64Array {
  const sums = new Float64Array(channels);
  for (let i = 0; i < data.length; i++)
    sums[i % channels] = (sums[i % channels] as number) + counted(data[i] as number);
  return sums;
}

/** How much of the channels' shares each cell of a grid over the picture accounts for; the hottest has 1. */
export function heat(maps: readonly FeatureMap[], shares: Float32Array): Float32Array {
  const warmth = new Float32Array(GRID * GRID);
  let start = 0;
  for (const map of maps) {
    const dealt = dealtOut(map, shares.subarray(start, start + map.channels));
    add(warmth, resizedPlane(dealt, map.edge, GRID));
    start += map.channels;
  }
  const sorted = warmth.slice().sort();
  const place = (sorted.length - 1) * LOW;
  const [below, above] = [sorted[Math.floor(place)] as number, sorted[Math.ceil(place)] as number];
  const low = below + (above - below) * (place % 1);
  const raised = warmth.map((value) => Math.max(value - low, 0));
  const most = Math.max(...raised, 1e-9);
  return raised.map((value) => value / most);
}

/** For each place of a map, how much of its channels' shares it accounts for, times the number of places. */
function dealtOut(map: FeatureMap, shares: Float32Array): Float32Array {
  const { channels, data, edge } = map;
  const sums = totals(map, (value) => Math.max(value, 0));
  const dealt = new Float32Array(edge * edge);
  for (let place = 0; place < dealt.length; place++) {
    let sum = 0;
    for (let channel = 0; channel < channels; channel++) {
      const total = sums[channel] as number;
      const active = Math.max(data[place * channels + channel] as number, 0);
      if (total > 0) sum += active * ((shares[channel] as number) / Math.max(total, 1e-12));
    }
    dealt[place] = sum * dealt.length;
  }
  return dealt;
}

/** Up to four boxes that hold much more of the heat than of the area, and little of each other. */
export function tellingParts(warmth: Float32Array): Box[] {
  const total = Math.max(
    warmth.reduce((sum, value) => sum + value, 0),
    1e-9,
  );
  const gain = (box: Box) => {
    const [x, y, width, height] = box.map((part) => Math.round(part * GRID)) as unknown as Box;
    let held = 0;
    for (let row = y; row < y + height; row++) {
      for (let column = x; column < x + width; column++) held += warmth[row * GRID + column] as number;
    }
    return held / total - box[2] * box[3];
  };
  const parts = LEVELS.flatMap((level) => islands(warmth.map((value) => Number(value >= level))))
    .map((box) => ({ box, gain: gain(box) }))
    .sort((a, b) => b.gain - a.gain);
  const best = parts[0]?.gain ?? 0;
  const chosen: Box[] = [];
  for (const one of parts) {
    const isApart = chosen.every((other) => overlap(one.box, other) <= OVERLAP_MAX);
    if (isApart && one.gain >= GAIN_MIN * best && GAIN_MIN * best > 0) chosen.push(one.box);
  }
  return chosen.slice(0, REGIONS_MAX);
}

/** Boxes around connected cells, also by corners, in the order of their first cells, row by row. */
function islands(mask: Float32Array): Box[] {
  const left = mask.slice();
  const found: Box[] = [];
  for (let start = 0; start < left.length; start++) {
    if (!left[start]) continue;
    let [x0, y0, x1, y1] = [GRID, GRID, 0, 0];
    const waiting = [start];
    left[start] = 0;
    for (let cell = waiting.pop(); cell !== undefined; cell = waiting.pop()) {
      const [x, y] = [cell % GRID, Math.floor(cell / GRID)];
      [x0, y0, x1, y1] = [Math.min(x0, x), Math.min(y0, y), Math.max(x1, x + 1), Math.max(y1, y + 1)];
      for (let row = Math.max(y - 1, 0); row <= Math.min(y + 1, GRID - 1); row++) {
        for (let column = Math.max(x - 1, 0); column <= Math.min(x + 1, GRID - 1); column++) {
          if (!left[row * GRID + column]) continue;
          left[row * GRID + column] = 0;
          waiting.push(row * GRID + column);
        }
      }
    }
    const [width, height] = [(x1 - x0) / GRID, (y1 - y0) / GRID];
    if (width * height >= AREA[0] && width * height <= AREA[1]) found.push([x0 / GRID, y0 / GRID, width, height]);
  }
  return found;
}

function overlap(one: Box, other: Box): number {
  const shared = ([0, 1] as const).map((i) => {
    const end = Math.min(one[i] + one[(i + 2) as 2 | 3], other[i] + other[(i + 2) as 2 | 3]);
    return Math.max(0, end - Math.max(one[i], other[i]));
  }) as [number, number];
  return (shared[0] * shared[1]) / Math.min(one[2] * one[3], other[2] * other[3]);
}
