/** Grey pictures, turned and made smaller as Pillow does it, level by level. */

export interface Grey {
  width: number;
  height: number;
  /** Row by row, 0 to 255. */
  levels: Uint8Array;
}

/** Turned about its middle by degrees (counter-clockwise), large enough for all of it; zero around it. Bilinear. */
export function rotated({ width, height, levels }: Grey, degrees: number): Grey {
  const angle = (-degrees * Math.PI) / 180;
  const [a, b] = [Math.cos(angle), Math.sin(angle)];
  const from = (x: number, y: number, middle: readonly [number, number]): [number, number] => [
    a * x + b * y + middle[0],
    -b * x + a * y + middle[1],
  ];
  const centre = from(-width / 2, -height / 2, [width / 2, height / 2]);
  const corners = [from(0, 0, centre), from(width, 0, centre), from(width, height, centre), from(0, height, centre)];
  const extent = (axis: 0 | 1) => {
    const ends = corners.map((corner) => corner[axis]);
    return Math.ceil(Math.max(...ends)) - Math.floor(Math.min(...ends));
  };
  const [wide, high] = [extent(0), extent(1)];
  const start = from((width - wide) / 2, (height - high) / 2, centre);
  const out = new Uint8Array(wide * high);
  for (let y = 0; y < high; y += 1) {
    for (let x = 0; x < wide; x += 1) {
      const [u, v] = from(x + 0.5, y + 0.5, start);
      if (u >= 0 && v >= 0 && u < width && v < height) out[y * wide + x] = between(levels, width, height, u, v);
    }
  }
  return { width: wide, height: high, levels: out };
}

/** The level at a point, by the four pixels around it. */
function between(levels: Uint8Array, width: number, height: number, u: number, v: number): number {
  const [x, y] = [Math.floor(u - 0.5), Math.floor(v - 0.5)];
  const [dx, dy] = [u - 0.5 - x, v - 0.5 - y];
  const [left, right] = [Math.max(0, x), Math.min(width - 1, x + 1)];
  const row = (line: number) => {
    const [a, b] = [levels[line * width + left] as number, levels[line * width + right] as number];
    return a + (b - a) * dx;
  };
  const above = row(Math.max(0, y));
  const below = y + 1 < height ? row(y + 1) : above;
  return Math.trunc(above + (below - above) * dy);
}

/** At another size, by the triangle filter as wide as the scale. */
export function resized({ width, height, levels }: Grey, size: number): Float32Array {
  const across = sharesOf(width, size);
  const down = sharesOf(height, size);
  const squeezed = new Uint8Array(size * height);
  for (let y = 0; y < height; y += 1) {
    across.forEach(({ first, shares }, x) => {
      let sum = 0.5;
      shares.forEach((share, at) => {
        sum += share * (levels[y * width + first + at] as number);
      });
      squeezed[y * size + x] = Math.min(255, Math.floor(sum));
    });
  }
  const out = new Float32Array(size * size);
  down.forEach(({ first, shares }, y) => {
    for (let x = 0; x < size; x += 1) {
      let sum = 0.5;
      shares.forEach((share, at) => {
        sum += share * (squeezed[(first + at) * size + x] as number);
      });
      out[y * size + x] = Math.min(255, Math.floor(sum));
    }
  });
  return out;
}

function sharesOf(length: number, size: number): { first: number; shares: number[] }[] {
  const scale = length / size;
  const wide = Math.max(scale, 1);
  return Array.from({ length: size }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - wide + 0.5));
    const last = Math.min(length, Math.trunc(centre + wide + 0.5));
    const raw = Array.from({ length: last - first }, (_, at) =>
      Math.max(0, 1 - Math.abs((first + at - centre + 0.5) / wide)),
    );
    const sum = raw.reduce((total, share) => total + share, 0);
    return { first, shares: raw.map((share) => share / sum) };
  });
}
