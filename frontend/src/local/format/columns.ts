/** The values of one part's rows by which they are filtered, counted and ordered (`index/format/facets.py`). */
import type { Container } from "../../bytes/container";
import type { Condition, Filters } from "../../endpoint/contract";
import { Refusal } from "../refusal";
import { type AttributeColumn, byCodePoints, meets, noAttribute } from "./attributes";
import type { AttributeType } from "./manifest";

/** Facets with at most one value an item. */
export const CODED = ["collection", "source", "country", "currency"] as const;
export const FACETS = [...CODED, "label"] as const;

type Types = Readonly<Record<string, AttributeType>>;
type Test = (row: number) => boolean;

/** Several values a row: those of row i are codes[starts[i]] to codes[starts[i + 1]], numbers of names from 0. */
export interface ListColumn {
  starts: Uint32Array;
  codes: ArrayLike<number>;
  /** 1 for those that the row is filtered by; null: all. */
  counts: Uint8Array | null;
}

export class Columns {
  readonly names: Readonly<Record<string, readonly string[]>>;
  readonly codes: Readonly<Record<string, ArrayLike<number>>>;
  readonly price: Float32Array;
  readonly date: Int32Array;
  readonly pixels: ArrayLike<number>;
  readonly products: BigUint64Array | null;
  readonly labels: ListColumn;
  /** Stems of the items' names; null if queries are not answered across the gap. */
  readonly words: ListColumn | null;
  private readonly attributes: readonly (AttributeColumn & { name: string })[];

  constructor(
    container: Container,
    readonly count: number,
  ) {
    const read = <Kind>(name: string): Kind => container.tensor(name) as Kind;
    const list = (name: string): ListColumn => ({
      starts: read(`${name}_starts`),
      codes: read(`${name}_codes`),
      counts: container.has(`${name}_counts`) ? read(`${name}_counts`) : null,
    });
    this.names = container.json("names");
    this.codes = Object.fromEntries(CODED.map((name) => [name, read<Uint16Array>(name)]));
    this.price = read("price");
    this.date = read("date");
    this.pixels = container.has("pixels") ? read<Uint32Array>("pixels") : new Uint8Array(count);
    this.products = container.has("products") ? read("products") : null;
    this.labels = list("label");
    this.words = container.has("word_starts") ? list("word") : null;
    const about = container.has("attributes") ? container.json<[string, AttributeType, string[]][]>("attributes") : [];
    this.attributes = about.map(([name, type, names], at) => ({ name, type, names, values: read(`attribute_${at}`) }));
  }

  attribute(name: string, type: AttributeType): AttributeColumn {
    return this.attributes.find((one) => one.name === name && one.type === type) ?? noAttribute(type, this.count);
  }

  /** The currency of a row's price; undefined without a price or without its currency. */
  currencyOf(row: number): string | undefined {
    if (Number.isNaN(this.price[row])) return undefined;
    return this.names["currency"]?.[(this.codes["currency"]?.[row] ?? 0) - 1];
  }

  /** A function that decides whether a row passes. Raises `Refusal` for a filter that cannot be read. */
  passes(filters: Filters, types: Types): Test {
    const tests: Test[] = [];
    for (const name of FACETS) {
      const any = filters[name];
      if (any?.length) tests.push(this.conditioned(name, { any: [...any] }, types));
    }
    if (filters.price) {
      const { min, max } = filters.price;
      tests.push(this.conditioned("price", { min: min ?? null, max: max ?? null, missing: false }, types));
    }
    if (filters.date_from != null || filters.date_to != null) {
      const condition = { min: filters.date_from ?? null, max: filters.date_to ?? null };
      tests.push(this.conditioned("date", condition, types));
    }
    for (const [name, condition] of Object.entries(filters.attributes ?? {})) {
      tests.push(this.conditioned(name, condition, types));
    }
    return (row) => tests.every((test) => test(row));
  }

  private conditioned(name: string, condition: Condition, types: Types): Test {
    if (name === "label") return this.labelled(condition);
    // Every object has a property called `constructor`.
    const codes = Object.hasOwn(this.codes, name) && this.codes[name];
    if (codes) return meets({ type: "keyword", values: codes, names: this.names[name] ?? [] }, name, condition);
    if (name === "price") return meets({ type: "number", values: this.price, names: [] }, name, condition);
    if (name === "date") return meets({ type: "date", values: this.date, names: [] }, name, condition);
    const type = Object.hasOwn(types, name) && types[name];
    if (!type) {
      const known = Object.keys(types).sort(byCodePoints).join(", ") || "none";
      throw new Refusal(
        `'${name.slice(0, 80)}' is not an attribute of this index`,
        `${FACETS.join(", ")}, price, date, and declared attributes: ${known}`,
        "Correct the name, or declare it under [attributes] in visor.toml and crawl again",
      );
    }
    return meets(this.attribute(name, type), name, condition);
  }

  /** As a condition on a keyword, with any of the labels for its value. */
  private labelled({ any, none, min, max, missing }: Condition): Test {
    const names = this.names["label"] ?? [];
    const { starts, codes, counts } = this.labels;
    const hasOne = (passes: (code: number) => boolean): Test => {
      return (row) => {
        for (let at = starts[row] as number; at < (starts[row + 1] as number); at += 1) {
          if ((counts?.[at] ?? 1) > 0 && passes(codes[at] as number)) return true;
        }
        return false;
      };
    };
    const named = (wanted: readonly string[]): Test => {
      const chosen = names.map((name) => wanted.includes(name));
      return hasOne((code) => chosen[code] ?? false);
    };
    const tests: Test[] = [meets(noAttribute("keyword", this.count), "label", { min: min ?? null, max: max ?? null })];
    if (any?.length) tests.push(named(any));
    if (none?.length) {
      const unwanted = named(none);
      tests.push((row) => !unwanted(row));
    }
    if (typeof missing === "boolean") {
      const labelled = hasOne(() => true);
      tests.push((row) => labelled(row) !== missing);
    }
    return (row) => tests.every((test) => test(row));
  }

  /** The sum of the weights of each row's words, (n,). */
  wordSums(weights: Readonly<Record<string, number>>): Float64Array {
    const sums = new Float64Array(this.count);
    if (!this.words) return sums;
    const { starts, codes } = this.words;
    const worth = (this.names["word"] ?? []).map((name) => (Object.hasOwn(weights, name) ? (weights[name] ?? 0) : 0));
    for (let row = 0; row < this.count; row += 1) {
      let sum = 0;
      for (let at = starts[row] as number; at < (starts[row + 1] as number); at += 1) {
        sum += worth[codes[at] as number] ?? 0;
      }
      sums[row] = sum;
    }
    return sums;
  }

  /** The content labels of a row, most probable first. */
  labelsOf(row: number): string[] {
    return this.namesOf("label", this.labels, row);
  }

  /** Stems of a row's words. */
  wordsOf(row: number): string[] {
    return this.words ? this.namesOf("word", this.words, row) : [];
  }

  private namesOf(name: string, { starts, codes }: ListColumn, row: number): string[] {
    const start = starts[row] as number;
    const length = (starts[row + 1] as number) - start;
    return Array.from({ length }, (_, at) => this.names[name]?.[codes[start + at] as number] ?? "");
  }
}
