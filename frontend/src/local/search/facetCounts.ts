/** How the rows that pass are distributed over facets, attributes, prices and dates (`index/search/facet_counts.py`). */
import type { AttributeFacet, FacetsAnswer, FacetValue, RangeCount } from "../../endpoint/contract";
import { byCodePoints, has, isoDay, NO_DATE } from "../format/attributes";
import { CODED, type Columns, FACETS } from "../format/columns";
import type { AttributeType, Constants } from "../format/manifest";

type Limits = Constants["facets"];
type Counts = Map<string, number>;

/** Counts over the rows of all parts that pass. */
export function countFacets(
  parts: readonly { columns: Columns; rows: readonly number[] }[],
  types: Readonly<Record<string, AttributeType>>,
  limits: Limits,
): FacetsAnswer {
  const sums = Object.fromEntries(FACETS.map((name) => [name, new Map() as Counts]));
  const prices: number[] = [];
  const days: number[] = [];
  for (const { columns, rows } of parts) {
    const { names, codes, labels } = columns;
    const counted = Object.fromEntries(FACETS.map((name) => [name, new Uint32Array((names[name]?.length ?? 0) + 1)]));
    for (const row of rows) {
      for (const name of CODED) bump(counted[name], codes[name]?.[row]);
      for (let at = labels.starts[row] as number; at < (labels.starts[row + 1] as number); at += 1) {
        if ((labels.counts?.[at] ?? 1) > 0) bump(counted["label"], (labels.codes[at] as number) + 1);
      }
      const [price, day] = [columns.price[row] as number, columns.date[row] as number];
      if (!Number.isNaN(price)) prices.push(price);
      if (day !== NO_DATE) days.push(day);
    }
    for (const name of FACETS) addNamed(sums[name], counted[name], names[name] ?? []);
  }
  const sorted = Float32Array.from(prices).sort();
  const listed = Object.fromEntries(FACETS.map((name) => [name, topValues(sums[name], limits.values_max)]));
  const attributes = Object.entries(types).map(([name, type]) => [name, attributeFacet(parts, name, type, limits)]);
  return {
    images: parts.reduce((sum, { rows }) => sum + rows.length, 0),
    ...(sorted.length > 0 && { price_min: sorted[0] ?? null, price_max: sorted.at(-1) ?? null }),
    price_ranges: priceRanges(sorted, limits.price_ranges),
    date_ranges: dateRanges(days, limits.date_ranges),
    attributes: Object.fromEntries(attributes),
    ...listed,
  };
}

function bump(counted: Uint32Array | undefined, at: number | undefined): void {
  if (counted && at !== undefined) counted[at] = (counted[at] ?? 0) + 1;
}

/** Adds counts by number (0 means none) to those by name. */
function addNamed(sums: Counts | undefined, counted: Uint32Array | undefined, names: readonly string[]): void {
  names.forEach((name, at) => {
    const count = counted?.[at + 1] ?? 0;
    if (count > 0) sums?.set(name, (sums.get(name) ?? 0) + count);
  });
}

/** The most frequent values first, equal ones by name. */
function topValues(counts: Counts | undefined, most: number): FacetValue[] {
  const ordered = [...(counts ?? [])].sort(([a, m], [b, n]) => n - m || byCodePoints(a, b));
  return ordered.slice(0, most).map(([value, count]) => ({ value, count }));
}

function attributeFacet(
  parts: readonly { columns: Columns; rows: readonly number[] }[],
  name: string,
  type: AttributeType,
  limits: Limits,
): AttributeFacet {
  const sums: Counts = new Map();
  let [low, high, missing] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0];
  for (const { columns, rows } of parts) {
    const column = columns.attribute(name, type);
    const counted = new Uint32Array(column.names.length + 1);
    for (const row of rows) {
      const value = column.values[row] as number;
      if (!has(column, row)) missing += 1;
      else if (type === "keyword" || type === "flag") bump(counted, value);
      else [low, high] = [Math.min(low, value), Math.max(high, value)];
    }
    addNamed(sums, counted, column.names);
  }
  const said = (end: number) => (type === "date" ? isoDay(end) : end);
  return {
    type,
    values: topValues(sums, limits.values_max),
    ...(low <= high && { min: said(low), max: said(high) }),
    missing,
  };
}

/** At most this many ranges with round ends and about as many prices in each, of ascending prices. */
export function priceRanges(prices: ArrayLike<number>, most: number): RangeCount[] {
  const count = prices.length;
  if (count === 0) return [];
  const ends = Array.from({ length: most + 1 }, (_, at) => quantile(prices, at / most));
  const gaps = ends.slice(1).map((end, at) => end - (ends[at] as number));
  const edges = [roundedTo(ends[0] as number, gaps[0] as number, Math.floor)];
  gaps.forEach((before, at) => {
    const behind = gaps[at + 1];
    const gap = behind === undefined ? before : (before + behind) / 2;
    const edge = roundedTo(ends[at + 1] as number, gap, behind === undefined ? Math.ceil : toEven);
    if (edge > (edges.at(-1) as number)) edges.push(edge);
  });
  const [first] = edges as [number];
  if (edges.length === 1) return [{ min: first, max: first, count }];
  const last = edges.length - 1;
  edges[last] = Math.max(edges[last] as number, roundedTo(ends[most] as number, gaps[most - 1] as number, Math.ceil));
  const counts = new Array<number>(last).fill(0);
  // Compared as a filter does: 0.1 is a little more in float32, and 19.99 a little less.
  const bounds = edges.map(Math.fround);
  for (let at = 0; at < count; at += 1) {
    const price = prices[at] as number;
    const range = bounds.findIndex(
      (bound, number) => number > 0 && (price < bound || (number === last && price === bound)),
    );
    if (range > 0 && price >= (bounds[0] as number)) counts[range - 1] = (counts[range - 1] as number) + 1;
  }
  return counts.map((found, at) => ({ min: edges[at] as number, max: edges[at + 1] as number, count: found }));
}

function quantile(rising: ArrayLike<number>, share: number): number {
  const place = share * (rising.length - 1);
  const below = Math.floor(place);
  const [a, b] = [rising[below] as number, rising[Math.min(below + 1, rising.length - 1)] as number];
  return a + (b - a) * (place - below);
}

/** Python's `round`: ties to even. */
function toEven(value: number): number {
  const nearest = Math.round(value);
  return Math.abs(value % 1) === 0.5 && nearest % 2 !== 0 ? nearest - 1 : nearest;
}

/** A value, rounded to a multiple of 1, 2 or 5 times a power of ten that is no more than half of a gap. */
function roundedTo(value: number, gap: number, how: (value: number) => number): number {
  const wide = gap > 0 ? gap : Math.abs(value) / 100 || 1;
  const power = Math.floor(Math.log10(wide / 2));
  const step = [5, 2, 1].map((n) => n * 10 ** power).find((one) => one <= wide / 2) ?? 10 ** power;
  const multiple = how(Number((value / step).toFixed(6)));
  return Number((multiple * step).toFixed(Math.max(0, -power)));
}

type Period = readonly [unit: "D" | "M" | "Y", length: number];
const PERIODS: readonly Period[] = [
  ["D", 1],
  ["D", 7],
  ...[1, 3, 6].map((n): Period => ["M", n]),
  ...[1, 2, 5, 10, 20, 50, 100, 1000].map((n): Period => ["Y", n]),
];
/** Weeks begin on Monday, and decades with a year that ends in 0. */
const shiftOf = ([unit, length]: Period): number => (unit === "Y" ? 1970 : unit === "D" && length === 7 ? 3 : 0);

/** At most this many ranges of calendar days, weeks, months or years, from days since 1970. */
export function dateRanges(days: readonly number[], most: number): RangeCount[] {
  if (days.length === 0) return [];
  const [early, late] = [days.reduce((a, b) => Math.min(a, b)), days.reduce((a, b) => Math.max(a, b))];
  const period = PERIODS.find((one) => numberIn(late, one) - numberIn(early, one) < most) ?? (["Y", 1000] as const);
  const [first, last] = [numberIn(early, period), numberIn(late, period)];
  const counts = new Array<number>(last - first + 1).fill(0);
  for (const day of days) {
    const at = numberIn(day, period) - first;
    counts[at] = (counts[at] as number) + 1;
  }
  const edges = Array.from({ length: last - first + 2 }, (_, at) => startOf(first + at, period));
  // The last range includes its last day.
  edges[edges.length - 1] = (edges.at(-1) as number) - 1;
  return counts.map((count, at) => ({ min: isoDay(edges[at] as number), max: isoDay(edges[at + 1] as number), count }));
}

/** The number of the period that contains a day. */
function numberIn(day: number, period: Period): number {
  const [unit, length] = period;
  const date = new Date(day * 86_400_000);
  const years = date.getUTCFullYear() - 1970;
  const count = unit === "D" ? day : unit === "M" ? years * 12 + date.getUTCMonth() : years;
  return Math.floor((count + shiftOf(period)) / length);
}

/** The first day of a period. */
function startOf(number: number, period: Period): number {
  const [unit, length] = period;
  const count = number * length - shiftOf(period);
  if (unit === "D") return count;
  const date = new Date(0);
  date.setUTCFullYear(unit === "Y" ? 1970 + count : 1970, unit === "M" ? count : 0, 1);
  return date.getTime() / 86_400_000;
}
