/** All rows of an export in memory, one part after the other. */
import { Container } from "../../bytes/container";
import { fromHalves } from "../../bytes/float16";
import type { Filters } from "../../endpoint/contract";
import { unitRows } from "../search/linear";
import { Codes } from "../search/scan";
import { byCodePoints } from "./attributes";
import { Columns } from "./columns";
import type { AttributeType, Manifest, Part } from "./manifest";
import { CodedVectors, FullVectors, type Vectors } from "./space";

const ID_BYTES = 16;
const PDQ_WORDS = 8;

/** The files of a part that are there before the first search; of the codes, `codes_low` comes later. */
export type PartFiles = Partial<Record<"columns" | "hashes" | "codes_high" | "codes_low" | "vectors" | "looks", Bytes>>;
type Bytes = Uint8Array<ArrayBuffer>;

export interface LoadedPart {
  /** Rows [start, stop) of the export. */
  start: number;
  stop: number;
  segment: number;
  columns: Columns;
}

/** Whether filters restrict anything; an empty list does not. */
export function isSet({ attributes, ...others }: Filters): boolean {
  const isGiven = (one: unknown): boolean => (Array.isArray(one) ? one.length > 0 : one != null);
  return Object.keys(attributes ?? {}).length > 0 || Object.values(others).some(isGiven);
}

export class Rows {
  readonly count: number;
  readonly parts: readonly LoadedPart[];
  /** (n, 16) */
  readonly ids: Uint8Array;
  /** (n, 8): PDQ. */
  readonly pdq: Uint32Array;
  /** (n,): the same number for items of one product, 0 for none. */
  readonly products: Uint32Array;
  readonly covered: Float32Array;
  readonly looks: Uint8Array | null;
  readonly types: Readonly<Record<string, AttributeType>>;
  /** Rows [start, stop) of each segment of the index. */
  readonly segments: readonly (readonly [start: number, stop: number])[];
  readonly vectors: Vectors;
  /** Full vectors (n, d), if confidence was measured in them although there is a projection. */
  readonly full: FullVectors | null;
  private readonly groupOf = new Map<number, string>();
  private readonly groups = new Map<string, number[]>();

  constructor(
    readonly manifest: Manifest,
    files: readonly PartFiles[],
  ) {
    const { parts, space, index } = manifest;
    const n = index.images;
    this.count = n;
    this.ids = new Uint8Array(n * ID_BYTES);
    this.pdq = new Uint32Array(n * PDQ_WORDS);
    this.products = new Uint32Array(n);
    this.covered = new Float32Array(n);
    this.types = Object.fromEntries(manifest.attributes.map(({ name, type }) => [name, type]));
    const lookSize = 3 * manifest.constants.fusion.labels_kept + manifest.constants.fusion.colours;
    this.looks = parts.some(({ looks }) => looks) ? new Uint8Array(n * lookSize) : null;
    const codes = space.file ? new Codes(n, space.dimensions) : null;
    const vectors = parts.some((part) => part.vectors) ? new Float32Array(n * space.dimension) : null;
    const products = new Map<bigint, number>();
    let start = 0;
    this.parts = parts.map((part, at) => {
      const mine = files[at] ?? {};
      const columns = this.readColumns(part, mine.columns, start, products);
      this.pdq.set(wordsOf(tensorOf(part.hashes?.name, mine.hashes, "export_hashes", "hashes")), start * PDQ_WORDS);
      if (this.looks && mine.looks) {
        this.looks.set(tensorOf(part.looks?.name, mine.looks, "export_looks", "looks"), start * lookSize);
      }
      if (codes) {
        const { high, covered } = highCodes(part, mine);
        this.covered.set(covered, start);
        unpackCodes(codes, start, high, lowCodes(part, mine));
      }
      if (vectors && mine.vectors) {
        const halves = Container.open(part.vectors?.name ?? "", mine.vectors, "export_vectors").tensor("vectors");
        vectors.set(unitRows(fromHalves(halves as Uint16Array), space.dimension), start * space.dimension);
      }
      const loaded = { start, stop: start + part.rows, segment: part.segment, columns };
      start += part.rows;
      return loaded;
    });
    const whole = vectors ? new FullVectors(vectors, space.dimension) : null;
    this.vectors = codes ? new CodedVectors(codes) : (whole ?? new FullVectors(new Float32Array(), 1));
    this.full = codes ? whole : null;
    this.segments = [...new Set(this.parts.map(({ segment }) => segment))].map((segment) => {
      const mine = this.parts.filter((part) => part.segment === segment);
      return [(mine[0] as LoadedPart).start, (mine.at(-1) as LoadedPart).stop] as const;
    });
  }

  id(row: number): string {
    let text = "";
    for (let at = row * ID_BYTES; at < (row + 1) * ID_BYTES; at += 1) {
      text += (this.ids[at] as number).toString(16).padStart(2, "0");
    }
    return text;
  }

  /** The row of an item; null if there is none. Within a part rows are sorted by id. */
  find(id: string): number | null {
    if (!/^[0-9a-f]{32}$/.test(id)) return null;
    for (const { start, stop } of this.parts) {
      let [low, high] = [start, stop];
      while (low < high) {
        const middle = (low + high) >> 1;
        if (this.id(middle) < id) low = middle + 1;
        else high = middle;
      }
      if (low < stop && this.id(low) === id) return low;
    }
    return null;
  }

  compareIds(a: number, b: number): number {
    for (let at = 0; at < ID_BYTES; at += 1) {
      const apart = (this.ids[a * ID_BYTES + at] as number) - (this.ids[b * ID_BYTES + at] as number);
      if (apart !== 0) return apart;
    }
    return 0;
  }

  /** Bits in which two rows' PDQ hashes differ, at most `most` of which are counted. */
  bitsApart(a: number, b: number, most: number): number {
    let bits = 0;
    for (let at = 0; at < PDQ_WORDS && bits <= most; at += 1) {
      bits += ones((this.pdq[a * PDQ_WORDS + at] as number) ^ (this.pdq[b * PDQ_WORDS + at] as number));
    }
    return bits;
  }

  partOf(row: number): LoadedPart {
    return this.parts.find(({ stop }) => row < stop) as LoadedPart;
  }

  labelsOf(row: number): string[] {
    const { columns, start } = this.partOf(row);
    return columns.labelsOf(row - start);
  }

  wordsOf(row: number): string[] {
    const { columns, start } = this.partOf(row);
    return columns.wordsOf(row - start);
  }

  /** Other rows, ascending, whose hash a merge found to be close to this one's. */
  groupWith(row: number): number[] {
    const key = this.groupOf.get(row);
    return key === undefined ? [] : (this.groups.get(key) ?? []).filter((other) => other !== row);
  }

  /** (n,) 1 for rows that pass; null if no filter is set. Raises `Refusal` for a filter that cannot be read. */
  allowed(filters: Filters): Uint8Array | null {
    if (!isSet(filters)) return null;
    const keep = new Uint8Array(this.count);
    for (const { columns, start, stop } of this.parts) {
      const passes = columns.passes(filters, this.types);
      for (let row = start; row < stop; row += 1) keep[row] = Number(passes(row - start));
    }
    return keep;
  }

  /** Currencies in which the rows that pass have prices, in order. */
  currencies(filters: Filters): string[] {
    const allowed = this.allowed(filters);
    const found = new Set<string>();
    for (const { columns, start, stop } of this.parts) {
      for (let row = start; row < stop; row += 1) {
        const currency = columns.currencyOf(row - start);
        if (currency && (!allowed || allowed[row])) found.add(currency);
      }
    }
    return [...found].sort(byCodePoints);
  }

  /** (n,): the sum of the weights of each row's words. */
  wordSums(weights: Readonly<Record<string, number>>): Float64Array {
    const sums = new Float64Array(this.count);
    for (const { columns, start } of this.parts) sums.set(columns.wordSums(weights), start);
    return sums;
  }

  private readColumns(part: Part, bytes: Bytes | undefined, start: number, products: Map<bigint, number>): Columns {
    const container = Container.open(part.columns.name, bytes ?? new Uint8Array(), "export_columns");
    const columns = new Columns(container, part.rows);
    this.ids.set(container.tensor("ids") as Uint8Array, start * ID_BYTES);
    columns.products?.forEach((product, row) => {
      if (product === 0n) return;
      if (!products.has(product)) products.set(product, products.size + 1);
      this.products[start + row] = products.get(product) as number;
    });
    if (container.has("group_rows")) {
      const keys = container.tensor("group_keys") as BigUint64Array;
      (container.tensor("group_rows") as Uint32Array).forEach((row, at) => {
        const key = `${part.segment} ${keys[at]}`;
        this.groupOf.set(start + row, key);
        this.groups.set(key, [...(this.groups.get(key) ?? []), start + row]);
      });
    }
    return columns;
  }
}

const tensorOf = (name: string | undefined, bytes: Bytes | undefined, kind: string, tensor: string): Uint8Array =>
  Container.open(name ?? kind, bytes ?? new Uint8Array(), kind).tensor(tensor) as Uint8Array;

const wordsOf = (bytes: Uint8Array): Uint32Array => new Uint32Array(bytes.slice().buffer);

function highCodes(part: Part, files: PartFiles): { high: Uint8Array; covered: Float32Array } {
  const container = Container.open(
    part.codes_high?.name ?? "",
    files.codes_high ?? new Uint8Array(),
    "export_codes_high",
  );
  return { high: container.tensor("codes") as Uint8Array, covered: container.tensor("covered") as Float32Array };
}

const lowCodes = (part: Part, files: PartFiles): Uint8Array | null =>
  files.codes_low ? tensorOf(part.codes_low?.name, files.codes_low, "export_codes_low", "codes") : null;

/** Codes from their upper four bits and, if they are here, the lower ones; otherwise the middle value is used. */
function unpackCodes({ bytes, stride, m }: Codes, start: number, high: Uint8Array, low: Uint8Array | null): void {
  const h = Math.ceil(m / 2);
  for (let row = 0; row * h < high.length; row += 1) {
    const to = (start + row) * stride;
    for (let at = 0; at < h; at += 1) {
      const upper = high[row * h + at] as number;
      const lower = low ? (low[row * h + at] as number) : 0x88;
      bytes[to + at] = (upper & 0xf0) | (lower >> 4);
      if (at + h < m) bytes[to + at + h] = ((upper & 0x0f) << 4) | (lower & 0x0f);
    }
  }
}

function ones(word: number): number {
  let bits = word - ((word >>> 1) & 0x55555555);
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
  return Math.imul((bits + (bits >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}
