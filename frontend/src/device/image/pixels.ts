import { roundedToEven } from "../../bytes/float16";
import type { Box } from "../../endpoint/contract";

/** A picture of 8 bits a channel, row by row: red, green, blue, and with `step` 4 a byte that is not read. */
export interface Pixels {
  data: Uint8Array | Uint8ClampedArray;
  width: number;
  height: number;
  step: 3 | 4;
}

/** Left, upper, right, lower, in pixels. */
export type Edges = readonly [number, number, number, number];

export type Filter = "box" | "bilinear" | "bicubic";

const FILTERS: Record<Filter, { support: number; at: (x: number) => number }> = {
  box: { support: 0.5, at: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  bilinear: { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, at: (x) => cubic(Math.abs(x)) },
};

function cubic(x: number): number {
  const a = -0.5;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/** Which values along one axis make each output, and their shares: `reach` shares from `first` on. */
interface Shares {
  first: Int32Array;
  count: Int32Array;
  shares: Float64Array;
  reach: number;
}

/** Pillow's, whose antialiasing widens the filter with the scale; its edges are 32-bit floats. */
function sharesOf(length: number, from: number, to: number, size: number, { support, at }: (typeof FILTERS)[Filter]) {
  const [low, high] = [Math.fround(from), Math.fround(to)];
  const scale = Math.fround(high - low) / size;
  const wide = Math.max(scale, 1);
  const radius = support * wide;
  const reach = Math.ceil(radius) * 2 + 1;
  const found: Shares = {
    first: new Int32Array(size),
    count: new Int32Array(size),
    shares: new Float64Array(size * reach),
    reach,
  };
  for (let place = 0; place < size; place++) {
    const centre = low + (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - radius + 0.5));
    const count = Math.min(length, Math.trunc(centre + radius + 0.5)) - first;
    let sum = 0;
    for (let i = 0; i < count; i++) {
      const share = at((i + first - centre + 0.5) * (1 / wide));
      found.shares[place * reach + i] = share;
      sum += share;
    }
    for (let i = 0; i < count && sum !== 0; i++) {
      found.shares[place * reach + i] = (found.shares[place * reach + i] as number) / sum;
    }
    found.first[place] = first;
    found.count[place] = count;
  }
  return found;
}

/** Fractional bits of Pillow's integer arithmetic. */
const BITS = 22;
const HALF = 1 << (BITS - 1);

function inIntegers(found: Shares): Shares {
  const shares = found.shares.map((share) => Math.trunc(share * (1 << BITS) + (share < 0 ? -0.5 : 0.5)));
  return { ...found, shares };
}

const clipped = (sum: number): number => Math.min(Math.max(Math.floor(sum / (1 << BITS)), 0), 255);

/**
 * The part of a picture within `box` at another size, as Pillow's `resize` makes it, level by level.
 *
 * `gap`: Pillow's `reducing_gap`: if there are this many times more pixels than needed, whole blocks of them are
 * averaged first.
 */
export function resize(
  image: Pixels,
  width: number,
  height: number,
  filter: Filter,
  box: Edges = [0, 0, image.width, image.height],
  gap = 0,
): Pixels {
  const across = gap ? Math.trunc((box[2] - box[0]) / width / gap) || 1 : 1;
  const down = gap ? Math.trunc((box[3] - box[1]) / height / gap) || 1 : 1;
  if (across > 1 || down > 1) {
    const edges = safeEdges(image, width, height, filter, box);
    const [x, y] = edges;
    const within: Edges = [(box[0] - x) / across, (box[1] - y) / down, (box[2] - x) / across, (box[3] - y) / down];
    return resize(reduced(image, across, down, edges), width, height, filter, within);
  }
  const columns = inIntegers(sharesOf(image.width, box[0], box[2], width, FILTERS[filter]));
  const rows = inIntegers(sharesOf(image.height, box[1], box[3], height, FILTERS[filter]));
  const [wide, high] = [image.width - width, image.height - height];
  // Levels are rounded between the two passes, so their order counts.
  if (high > 0 && wide * 2 < high) return squeezed(flattened(image, rows, height), columns, width);
  const top = rows.first[0] as number;
  const bottom = (rows.first[height - 1] as number) + (rows.count[height - 1] as number);
  return flattened(squeezed(image, columns, width, top, bottom), rows, height, top);
}

/** The rows from `top` to `bottom` with other columns. */
function squeezed(
  { data, width, height, step }: Pixels,
  { first, count, shares, reach }: Shares,
  size: number,
  top = 0,
  bottom = height,
): Pixels {
  const out = new Uint8Array(size * (bottom - top) * 3);
  for (let y = top, to = 0; y < bottom; y++) {
    for (let x = 0; x < size; x++, to += 3) {
      let [red, green, blue] = [HALF, HALF, HALF];
      let from = (y * width + (first[x] as number)) * step;
      const end = x * reach + (count[x] as number);
      for (let i = x * reach; i < end; i++, from += step) {
        const share = shares[i] as number;
        red += (data[from] as number) * share;
        green += (data[from + 1] as number) * share;
        blue += (data[from + 2] as number) * share;
      }
      out[to] = clipped(red);
      out[to + 1] = clipped(green);
      out[to + 2] = clipped(blue);
    }
  }
  return { data: out, width: size, height: bottom - top, step: 3 };
}

/** Other rows, of a picture whose first `top` rows are left out. */
function flattened(
  { data, width, step }: Pixels,
  { first, count, shares, reach }: Shares,
  size: number,
  top = 0,
): Pixels {
  const row = width * step;
  const out = new Uint8Array(size * width * 3);
  const sums = new Float64Array(row);
  for (let y = 0, to = 0; y < size; y++) {
    sums.fill(HALF);
    for (let i = 0; i < (count[y] as number); i++) {
      const share = shares[y * reach + i] as number;
      const from = ((first[y] as number) - top + i) * row;
      for (let x = 0; x < row; x++) sums[x] = (sums[x] as number) + (data[from + x] as number) * share;
    }
    for (let x = 0; x < row; x += step, to += 3) {
      for (let channel = 0; channel < 3; channel++) out[to + channel] = clipped(sums[x + channel] as number);
    }
  }
  return { data: out, width, height: size, step: 3 };
}

function safeEdges(image: Pixels, width: number, height: number, filter: Filter, box: Edges): Edges {
  const support = FILTERS[filter].support - 0.5;
  const [across, down] = [support * ((box[2] - box[0]) / width), support * ((box[3] - box[1]) / height)];
  return [
    Math.max(0, Math.trunc(box[0] - across)),
    Math.max(0, Math.trunc(box[1] - down)),
    Math.min(image.width, Math.ceil(box[2] + across)),
    Math.min(image.height, Math.ceil(box[3] + down)),
  ];
}

/** Means of blocks, as Pillow's `reduce` rounds them; the last ones may be smaller. */
function reduced(
  { data, width, step }: Pixels,
  across: number,
  down: number,
  [left, top, right, bottom]: Edges,
): Pixels {
  const [columns, rows] = [Math.ceil((right - left) / across), Math.ceil((bottom - top) / down)];
  const out = new Uint8Array(columns * rows * 3);
  for (let row = 0, to = 0; row < rows; row++) {
    const [y0, y1] = [top + row * down, Math.min(top + (row + 1) * down, bottom)];
    for (let column = 0; column < columns; column++, to += 3) {
      const [x0, x1] = [left + column * across, Math.min(left + (column + 1) * across, right)];
      const count = (y1 - y0) * (x1 - x0);
      const share = Math.floor(2 ** 24 / count);
      let [red, green, blue] = [count >> 1, count >> 1, count >> 1];
      for (let y = y0; y < y1; y++) {
        for (let x = x0, from = (y * width + x0) * step; x < x1; x++, from += step) {
          red += data[from] as number;
          green += data[from + 1] as number;
          blue += data[from + 2] as number;
        }
      }
      out[to] = Math.floor((red * share) / 2 ** 24);
      out[to + 1] = Math.floor((green * share) / 2 ** 24);
      out[to + 2] = Math.floor((blue * share) / 2 ** 24);
    }
  }
  return { data: out, width: columns, height: rows, step: 3 };
}

/** Single pixels of a picture, picked as by Pillow's nearest neighbour. */
export function sampled({ data, width, height, step }: Pixels, columns: number, rows: number): Pixels {
  const out = new Uint8Array(columns * rows * 3);
  let y = height / rows / 2;
  for (let row = 0, to = 0; row < rows; row++, y += height / rows) {
    let x = width / columns / 2;
    for (let column = 0; column < columns; column++, to += 3, x += width / columns) {
      const from = (Math.trunc(y) * width + Math.trunc(x)) * step;
      for (let channel = 0; channel < 3; channel++) out[to + channel] = data[from + channel] as number;
    }
  }
  return { data: out, width: columns, height: rows, step: 3 };
}

export function cropped({ data, width, step }: Pixels, [left, top, right, bottom]: Edges): Pixels {
  const [columns, rows] = [right - left, bottom - top];
  const out = new Uint8Array(columns * rows * step);
  for (let row = 0; row < rows; row++) {
    const from = ((top + row) * width + left) * step;
    out.set(data.subarray(from, from + columns * step), row * columns * step);
  }
  return { data: out, width: columns, height: rows, step };
}

/** The edges of a box that is given as fractions of the sides. */
export function edgesOf({ width, height }: Pixels, [x, y, w, h]: Box): Edges {
  const [right, bottom] = [Math.min(x + w, 1), Math.min(y + h, 1)];
  return [
    roundedToEven(x * width),
    roundedToEven(y * height),
    roundedToEven(right * width),
    roundedToEven(bottom * height),
  ];
}

/** Pixels that are read at once. */
const BAND_PIXELS = 1 << 20;

/** A picture whose sides are divided by `factor`, as the server scales what it decodes: from bands of its rows. */
export function scaledDown(
  width: number,
  height: number,
  factor: number,
  rowsOf: (top: number, bottom: number) => Pixels,
): Pixels {
  const [columns, rows] = [Math.max(1, Math.trunc(width / factor)), Math.max(1, Math.trunc(height / factor))];
  const scale = height / rows;
  const step = Math.max(1, Math.trunc(BAND_PIXELS / width));
  const out = new Uint8Array(columns * rows * 3);
  let [done, top] = [0, 0];
  for (let bottom = Math.min(step, height); done < rows; bottom = Math.min(bottom + step, height)) {
    const last = bottom === height ? rows : Math.trunc(bottom / scale);
    if (last === done) continue;
    const edges: Edges = [0, done * scale - top, width, Math.min(last * scale - top, bottom - top)];
    out.set(resize(rowsOf(top, bottom), columns, last - done, "box", edges).data, done * columns * 3);
    done = last;
    top = Math.min(Math.trunc(last * scale), bottom);
  }
  return { data: out, width: columns, height: rows, step: 3 };
}

/** A plane of numbers at another size, by Pillow's bicubic. */
export function resizedPlane(plane: Float32Array, edge: number, size: number): Float32Array {
  const { first, count, shares, reach } = sharesOf(edge, 0, edge, size, FILTERS.bicubic);
  const along = (rows: Float32Array): Float32Array => {
    const out = new Float32Array((rows.length / edge) * size);
    const height = rows.length / edge;
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < size; x++) {
        let sum = 0;
        for (let i = 0; i < (count[x] as number); i++) {
          sum += (rows[y * edge + (first[x] as number) + i] as number) * (shares[x * reach + i] as number);
        }
        // Columns and rows are swapped, so that the same code works along the other axis.
        out[x * height + y] = sum;
      }
    }
    return out;
  };
  return along(along(plane));
}
