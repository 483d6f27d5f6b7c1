import { fromHalves, roundedToEven, toHalves } from "../bytes/float16";
import { type Edges, type Pixels, resize } from "./image/pixels";
import type { Network, Part, Preprocessing, View } from "./model";

/** As in visor/models/embedder.py and visor/index/format/looks.py. */
export const LABELS_KEPT = 5;
const LOOK_LABELS = 32;
const LOOK_CLASSES = 1000;
const COLOURS = 162;
export const LOOK_BYTES = 3 * LOOK_LABELS + COLOURS;

/** One network's outputs for one picture: pooled taps, its head, and its feature maps if they were wanted. */
export interface Outputs {
  taps: Float32Array[];
  head: Float32Array | null;
  maps: FeatureMap[];
}

/** Activations of a square of places, row by row, with all channels of a place together. */
export interface FeatureMap {
  edge: number;
  channels: number;
  data: Float32Array;
}

/** The box of a view within a picture. */
export function viewOf({ width, height }: Pixels, view: View, centreShare: number): Edges {
  if (view === "whole") return [0, 0, width, height];
  const edge = Math.min(width, height) * (view === "centre" ? centreShare : view);
  const [left, upper] = [(width - edge) / 2, (height - edge) / 2];
  return [left, upper, left + edge, upper + edge];
}

/** A part of a picture as a network's input: `(level / 255 - mean) / deviation` of a square. */
export function prepare(pixels: Pixels, how: Preprocessing, box: Edges, isPlanar = false): Float32Array {
  const { size } = how;
  const { data } = resize(pixels, size, size, how.resample, box, 3);
  const given = new Float32Array(data.length);
  const order = how.order === "bgr" ? [2, 1, 0] : [0, 1, 2];
  const [step, stride] = isPlanar ? [1, size * size] : [3, 1];
  order.forEach((channel, place) => {
    const [mean, deviation] = [Math.fround(how.mean[channel] as number), Math.fround(how.deviation[channel] as number)];
    for (let i = 0; i < size * size; i++) {
      const level = Math.fround((data[i * 3 + channel] as number) / 255);
      given[i * step + place * stride] = Math.fround(level - mean) / deviation;
    }
  });
  return given;
}

/** The mean of several looks at one picture. */
export function meanOf(looks: readonly Outputs[]): Outputs {
  const [first, ...rest] = looks as [Outputs, ...Outputs[]];
  if (rest.length === 0) return first;
  const mean = (of: (one: Outputs) => Float32Array) => {
    const sum = Float32Array.from(of(first));
    for (const one of rest) add(sum, of(one));
    return sum.map((value) => value / looks.length);
  };
  return {
    taps: first.taps.map((_, place) => mean((one) => one.taps[place] as Float32Array)),
    head: first.head && mean((one) => one.head as Float32Array),
    maps: [],
  };
}

/** Adds numbers to as many others. */
export function add(sums: Float32Array, values: Float32Array): void {
  for (let i = 0; i < sums.length; i++) sums[i] = (sums[i] as number) + (values[i] as number);
}

/** One vector of unit length from the taps of each part. */
export function joinedVector(parts: readonly Part[], taps: readonly Float32Array[][]): Float32Array {
  const shares = parts.flatMap(({ network, weight }, place) => {
    if (weight <= 0) return [];
    const own = (taps[place] as Float32Array[]).map((tap) => unit(tap.map((value) => powered(value, network))));
    return [unit(joined(own)).map((value) => value * weight)];
  });
  return unit(joined(shares));
}

function powered(value: number, { power, signed }: Network): number {
  return signed ? Math.sign(value) * Math.abs(value) ** power : Math.max(value, 0) ** power;
}

export function joined(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function unit(vector: Float32Array): Float32Array {
  const length = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
  return vector.map((value) => (length > 0 ? value / length : vector.length ** -0.5));
}

/** A head's output as probabilities that add up to 1. */
export function probabilities(head: Float32Array, logits: boolean): Float32Array {
  const most = head.reduce((high, value) => Math.max(high, value), Number.NEGATIVE_INFINITY);
  const values = logits ? head.map((value) => Math.exp(value - most)) : head;
  const sum = values.reduce((total, value) => total + value, 0);
  return values.map((value) => value / Math.max(sum, 1e-12));
}

/** Positions of the greatest numbers, the first of equal ones first. */
export function greatest(values: Float32Array, count: number): number[] {
  const places = Array.from(values.keys());
  return places.sort((a, b) => (values[b] as number) - (values[a] as number) || a - b).slice(0, count);
}

/** The best labels with the roots of their probabilities, and the colours: 258 bytes. */
export function packLook(head: Float32Array | null, colours: Uint8Array): Uint8Array {
  const look = new Uint8Array(LOOK_BYTES);
  const best = head ? greatest(head.subarray(0, LOOK_CLASSES), LOOK_LABELS) : [];
  best.forEach((label, place) => {
    look[2 * place] = label & 255;
    look[2 * place + 1] = label >> 8;
    const share = Math.min(Math.max(head?.[label] ?? 0, 0), 1);
    look[2 * LOOK_LABELS + place] = roundedToEven(Math.fround(255 * Math.fround(Math.sqrt(share))));
  });
  look.set(colours, 3 * LOOK_LABELS);
  return look;
}

/** A vector as in requests and links: halves, then the look. */
export function vectorBytes(vector: Float32Array, look: Uint8Array): Uint8Array {
  const halves = new Uint8Array(toHalves(vector).buffer);
  const bytes = new Uint8Array(halves.length + look.length);
  bytes.set(halves);
  bytes.set(look, halves.length);
  return bytes;
}

/** The numbers in bytes that `vectorBytes` or the server made. */
export function readHalves(bytes: Uint8Array, count: number): Float32Array {
  return fromHalves(new Uint16Array(bytes.slice(0, 2 * count).buffer));
}
