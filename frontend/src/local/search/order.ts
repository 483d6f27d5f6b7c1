/** In which order rows are returned, and where a page of them ends (`index/search/listing.py`, `search/cursor.py`). */
import { fromBase64, toBase64 } from "../../bytes/base64";
import type { SearchRequest, Sort } from "../../endpoint/contract";
import { NO_DATE } from "../format/attributes";
import type { Columns } from "../format/columns";
import type { Rows } from "../format/rows";
import { Refusal } from "../refusal";
import { dot, type Floats, unit } from "./linear";

/** What a listing has returned already: all up to `last`, or else the ids whose prefixes are in `shown`. */
export interface Cursor {
  /** Generation of the export. */
  generation: string;
  last: readonly [value: number, likeness: number, id: string] | null;
  shown: readonly string[];
}

export interface Order {
  sort: Sort;
  /** With another order: how many of the nearest matches are ordered; 0: all that pass. */
  nearest: number;
  after: Cursor | null;
  variety: number;
  byProduct: boolean;
  similarityMin: number | null;
  /** The only rows that are returned. */
  among: ReadonlySet<number> | null;
  /** The query's copies with their similarity, for `most_changed`. */
  copies: ReadonlyMap<number, number>;
}

/** The first page of what is nearest: no listing is needed. */
export const isPlain = ({ sort, after, variety, among }: Order): boolean =>
  sort === "likeness" && !after && !variety && !among;

const ID_HEAD = 8;
export const headOf = (id: string): string => id.slice(0, ID_HEAD);

type Read = (columns: Columns) => ArrayLike<number>;
const SORTS: Partial<Record<Sort, readonly [read: Read, nothing: number, sign: 1 | -1]>> = {
  price_up: [({ price }) => price, Number.NaN, 1],
  price_down: [({ price }) => price, Number.NaN, -1],
  newest: [({ date }) => date, NO_DATE, -1],
  oldest: [({ date }) => date, NO_DATE, 1],
  largest: [({ pixels }) => pixels, 0, -1],
  smallest: [({ pixels }) => pixels, 0, 1],
};

/** The value that rises along the listing, (n,); infinite if there is none; null if likeness alone orders. */
export function sortValues(rows: Rows, { sort, copies }: Order): Float64Array | null {
  if (sort === "likeness") return null;
  const values = new Float64Array(rows.count).fill(Number.POSITIVE_INFINITY);
  for (const [row, similarity] of sort === "most_changed" ? copies : []) values[row] = similarity;
  const [read, nothing, sign] = SORTS[sort] ?? [];
  if (!read) return values;
  for (const { columns, start, stop } of rows.parts) {
    const column = read(columns);
    for (let row = start; row < stop; row += 1) {
      const value = column[row - start] as number;
      if (!Number.isNaN(value) && value !== nothing) values[row] = value * (sign ?? 1);
    }
  }
  return values;
}

const BOUND_TO = ["filters", "metric", "text", "sort", "min_confidence", "min_similarity", "variety", "group"] as const;
/** What two pages of one listing have in common. */
const boundTo = (request: SearchRequest): string =>
  JSON.stringify([...BOUND_TO.map((name) => request[name] ?? null), ...(request.nearest ? [request.nearest] : [])]);

/** Least cosine of the sketches of one picture, as in `search/cursor.py`. */
const SAME_PICTURE = 0.999;
const SKETCHED = 8;

/** 8 numbers at length 1 whose cosine is about that of two vectors; zeros without one. */
function sketch(vector: Floats | null): Floats {
  const sums = new Float32Array(SKETCHED);
  vector?.forEach((value, at) => {
    sums[at % SKETCHED] = (sums[at % SKETCHED] as number) + (at < vector.length / 2 ? value : -value);
  });
  return unit(sums);
}

/** The cursor as a request's `after` takes it, bound to the query's vector. Infinity is not JSON. */
export function writeCursor(cursor: Cursor | null, request: SearchRequest, vector: Floats | null): string | null {
  if (!cursor) return null;
  const last = cursor.last && [String(cursor.last[0]), cursor.last[1], cursor.last[2]];
  const picture = [...sketch(vector)].map((value) => Math.round(value * 1e4) / 1e4);
  const text = JSON.stringify([cursor.generation, last, cursor.shown, boundTo(request), picture]);
  return toBase64(new TextEncoder().encode(text));
}

/**
 * Where a request continues; null at the beginning. Raises `Refusal` for the cursor of another search or picture.
 *
 * @param vector As for `writeCursor`.
 * @param index What is searched: another index may embed the same picture differently.
 */
export function readCursor(request: SearchRequest, vector: Floats | null, index: string): Cursor | null {
  if (typeof request.after !== "string") return null;
  try {
    const text = new TextDecoder().decode(fromBase64(request.after));
    const [generation, last, shown, bound, picture] = JSON.parse(text);
    if (bound !== boundTo(request)) throw new Error("another search");
    const [written, own] = [Float32Array.from(picture), sketch(vector)];
    const isSame = dot(own, own) ? dot(written, own) >= SAME_PICTURE : !dot(written, written);
    if (generation === index && !isSame) throw new Error("another picture");
    return { generation, last: last && [Number(last[0]), last[1], last[2]], shown };
  } catch {
    throw new Refusal(
      "after is not a cursor of this search",
      "`next` of an answer to a request for the same picture that is the same otherwise",
      "Send it unchanged, or begin without `after`",
    );
  }
}
