/** What a request searches for, as a point in the index's space (`search/query.py`, `search/service.py`). */
import { fromBase64, toBase64 } from "../bytes/base64";
import { fromHalves, halvesOf, toHalves } from "../bytes/float16";
import type { Label, SearchRequest, Seen } from "../endpoint/contract";
import type { Judge } from "./confidence/judge";
import type { Items } from "./format/items";
import type { Manifest } from "./format/manifest";
import { isSet, type Rows } from "./format/rows";
import type { Placed, Space } from "./format/space";
import { type Asked, alignerOf } from "./nearDuplicates/verdict";
import { Refusal } from "./refusal";
import { lookBytes } from "./search/fusion";
import { type Floats, lengthOf, unit } from "./search/linear";

/** The page's request: for a picture, what its device saw. */
export type Sought = SearchRequest;

export interface Query {
  /** Null: there is nothing to be near to; all that passes the filters is returned. */
  placed: Placed | null;
  look: Uint8Array | null;
  isAcross: boolean;
  labels: readonly Label[];
  safety: Record<string, number> | null;
  blank: string | null;
  size: readonly [width: number, height: number] | null;
  /** Row of the item, if one was searched for. */
  item: number | null;
  /** The pictures that matches should be like: any of them gives a verdict. */
  asked: readonly Asked[];
  judged: Placed | null;
  /** Rows of the items among several pictures. */
  items: readonly number[];
}

const NONE: Query = {
  placed: null,
  look: null,
  isAcross: false,
  labels: [],
  safety: null,
  blank: null,
  size: null,
  item: null,
  asked: [],
  judged: null,
  items: [],
};

const PICTURES = ["image", "url", "vector", "item", "handle", "seen"] as const;
/** Below this length, a weighted mean of unit vectors has no direction. */
const SUM_MIN = 0.05;
/** How much a class of the safety head counts (`visor/models/embedder.py`). */
const UNSAFE = { hentai: 1, porn: 1, sexy: 0.5 };

export class QueryReader {
  constructor(
    private readonly manifest: Manifest,
    private readonly rows: Rows,
    private readonly space: Space,
    private readonly judge: Judge,
    private readonly items: Items,
  ) {}

  /** Raises `Refusal` for what cannot be searched for, here or at all. */
  async read(request: Sought, signal?: AbortSignal): Promise<Query> {
    const given = PICTURES.filter((name) => request[name] != null);
    const isFiltered = isSet(request.filters ?? {});
    this.check(request, given, isFiltered);
    if (request.examples?.length) return this.combinedQuery(request, given.length > 0, signal);
    if (given.length === 0) return NONE;
    return this.single(request, signal, true);
  }

  /** Whether what is seen in the picture is unsafe to answer. */
  isUnsafe({ safety }: Query): boolean {
    const { unsafe_query: limit } = this.manifest.settings;
    return (
      safety !== null && Object.entries(UNSAFE).reduce((sum, [name, by]) => sum + by * (safety[name] ?? 0), 0) >= limit
    );
  }

  private check(request: Sought, given: readonly string[], isFiltered: boolean): void {
    const cannot = (["image", "url", "handle"] as const).find((name) => given.includes(name));
    if (cannot) {
      throw new Refusal(
        `An export is not asked by ${cannot}`,
        "seen, vector or item: the device looks at pictures itself",
        "Let the device look, or send the picture to a server",
        "device_only",
      );
    }
    if (request.text) {
      throw new Refusal(
        "There is no index of words in an export",
        "A picture, an item, examples or filters",
        "Leave the text out",
        "device_only",
      );
    }
    if (request.metric) {
      throw new Refusal(
        "There are no full vectors in an export",
        "mode fast or exact",
        "Leave the metric out",
        "device_only",
      );
    }
    if (given.length > 1 || (given.length === 0 && !request.examples?.length && !isFiltered)) {
      throw new Refusal(
        `The request has ${given.join(" and ") || "nothing to search for"}`,
        "Exactly one of seen, vector, item, or examples or filters, with it or alone",
        "Send one",
      );
    }
    const least = (["min_confidence", "min_similarity", "nearest"] as const).find((name) => request[name]);
    if (least && given.length === 0 && !request.examples?.length) {
      throw new Refusal(
        `${least} does not go with filters alone, which have no similarity`,
        "With a picture",
        `Leave ${least} out, or say what to look for`,
      );
    }
    if (request.box || request.exclude?.length) {
      throw new Refusal("A box does not go with what was seen", "The device looks at the part", "Leave it out");
    }
  }

  private async single(request: Sought, signal: AbortSignal | undefined, mayCross: boolean): Promise<Query> {
    if (typeof request.item === "string") return this.itemQuery(request.item, signal);
    if (typeof request.vector === "string") {
      const [vector, look] = this.decoded(request.vector);
      return { ...NONE, ...this.sided([vector, look], mayCross), asked: [{ aligner: null, hash: null }] };
    }
    const seen = request.seen as Seen;
    if (seen.model !== this.manifest.index.model) {
      throw new Refusal(
        `The picture was looked at by the model ${seen.model}`,
        `The export is of ${this.manifest.index.model}`,
        "Load the page again",
        "other_model",
      );
    }
    const own = this.decoded(seen.vector);
    const closer = mayCross && !seen.blank ? this.sided(this.decoded(seen.closer ?? seen.vector), true) : null;
    const found = closer?.isAcross ? closer : this.sided(own, false);
    return {
      ...NONE,
      ...found,
      labels: seen.labels ?? [],
      safety: seen.safety ?? null,
      blank: seen.blank ?? null,
      size: [seen.width, seen.height],
      asked: [{ aligner: alignerOf(fromBase64(seen.hash), this.manifest.constants.verdict), hash: null }],
    };
  }

  /** A vector and its look, and whether it is on the visitors' side of the gap. */
  private sided(
    [vector, look]: [Floats, Uint8Array | null],
    mayCross: boolean,
  ): Pick<Query, "placed" | "look" | "isAcross"> {
    const isAcross = mayCross && look !== null && (this.judge.across?.isVisitor(vector) ?? false);
    return { placed: this.space.place(vector), look, isAcross };
  }

  private async itemQuery(id: string, signal?: AbortSignal): Promise<Query> {
    const row = this.rows.find(id);
    if (row === null) throw unknownItem(id);
    const known = (await this.items.get([row], signal)).get(row);
    return {
      ...NONE,
      placed: this.placeOf(row),
      item: row,
      labels: known?.indexed?.labels ?? [],
      blank: known?.indexed?.blank ?? null,
      asked: [{ aligner: null, hash: known?.hash ?? null }],
    };
  }

  private placeOf(row: number): Placed {
    const { full, vectors, covered } = this.rows;
    const whole = full ?? (this.space.projection ? null : vectors);
    if (whole) return this.space.place(whole.unit(row));
    return { full: null, unit: vectors.unit(row), covered: covered[row] as number };
  }

  /** The query of several pictures; that of the first unsafe one, if there is any. */
  private async combinedQuery(request: Sought, hasPicture: boolean, signal?: AbortSignal): Promise<Query> {
    const { examples = [], ...own } = request;
    const asked: [Sought, number][] = [
      ...(hasPicture ? [[own, 1] as [Sought, number]] : []),
      ...examples.map(({ weight, ...example }): [Sought, number] => [example as Sought, weight ?? 1]),
    ];
    for (const [one] of asked)
      this.check(
        one,
        PICTURES.filter((name) => one[name] != null),
        false,
      );
    // Several are compared as catalogue images: the gap is known for single photos only.
    const isOne = asked.filter(([, weight]) => weight !== 0).length === 1;
    const read = await Promise.all(
      asked.map(async ([one, weight]) => [await this.single(one, signal, isOne), weight] as const),
    );
    const unsafe = read.find(([query]) => this.isUnsafe(query));
    if (unsafe) return unsafe[0];
    const shown = read.filter(([query, weight]) => query.blank === null && weight !== 0);
    const [first] = shown;
    if (!first) return (read[0] as (typeof read)[0])[0];
    if (shown.length === 1 && first[1] > 0) return first[0];
    const wanted = shown.filter(([, weight]) => weight > 0);
    return {
      ...NONE,
      placed: this.towards(shown),
      labels: wanted[0]?.[0].labels ?? [],
      safety: first[0].safety,
      asked: wanted.length > 0 ? wanted.flatMap(([query]) => query.asked) : [{ aligner: null, hash: null }],
      judged: wanted.length > 0 && wanted.length < shown.length ? this.towards(wanted) : null,
      items: shown.flatMap(([{ item }]) => (item === null ? [] : [item])),
    };
  }

  /** The direction of the weighted sum of several pictures, relative to what the whole catalogue has in common. */
  private towards(some: readonly (readonly [Query, number])[]): Placed {
    const { calibration } = this.judge;
    const inFull = calibration.isFitted && calibration.stored.space == null ? calibration.mean : null;
    const origin = this.space.projection?.origin ?? inFull ?? new Float32Array(this.space.dimension);
    const direction = new Float64Array(origin.length);
    let [far, beside] = [0, 0];
    for (const [{ placed }, weight] of some) {
      const { known, lost } = this.space.unplaced(placed as Placed);
      const moved = known.map((value, at) => value - (origin[at] as number));
      const long = Math.hypot(lengthOf(moved), lost) || 1;
      far += long / some.length;
      moved.forEach((value, at) => {
        direction[at] = (direction[at] as number) + (weight * value) / long;
      });
      // Parts of which only the length is known point anywhere: no two add up.
      beside = Math.hypot(beside, (weight * lost) / long);
    }
    const length = Math.hypot(lengthOf(direction), beside);
    if (length < SUM_MIN * some.reduce((sum, [, weight]) => sum + Math.abs(weight), 0)) {
      throw new Refusal(
        `The ${some.length} pictures and their weights cancel each other out`,
        "Something to be like, or to be unlike",
        "Leave an example out, or give it another weight",
      );
    }
    const around = origin.map((value, at) => value + ((direction[at] as number) / length) * far);
    const whole = Math.hypot(lengthOf(around), (beside / length) * far);
    // Rounded as in links, so that a link gets the same answer as the pictures.
    const full = unit(fromHalves(toHalves(unit(around))));
    if (beside === 0) return this.space.place(full);
    const known = full.map((value) => (value * lengthOf(around)) / whole);
    return { ...this.space.place(known, ((beside / length) * far) / whole), full };
  }

  /** The unit vector in base64 of little-endian halves, and the look that may follow it. */
  private decoded(text: string): [vector: Floats, look: Uint8Array | null] {
    const { dimension } = this.space;
    const size = lookBytes(this.manifest.constants.fusion);
    let bytes: Uint8Array;
    try {
      bytes = fromBase64(text);
    } catch {
      throw new Refusal("vector is not base64", "Base64 of little-endian float16");
    }
    if (bytes.length !== 2 * dimension && bytes.length !== 2 * dimension + size) {
      throw new Refusal(
        `vector has ${bytes.length} bytes`,
        `This index takes ${2 * dimension}: ${dimension} numbers of 2 bytes`,
        "Take query.vector from an answer of this index; after a change of model search the picture again",
      );
    }
    const vector = unit(fromHalves(halvesOf(bytes.subarray(0, 2 * dimension))));
    if (!vector.every(Number.isFinite) || vector.every((value) => value === 0)) {
      throw new Refusal(
        "The vector is all zeros or holds a number that is not finite",
        "A vector has finite numbers, not all of them 0",
        "Send the vector as an answer's query.vector gives it",
      );
    }
    return [vector, bytes.length > 2 * dimension ? bytes.slice(2 * dimension) : null];
  }
}

/** What `decoded` reads. */
export function encodeVector(vector: Floats, look: Uint8Array | null): string {
  const halves = new Uint8Array(toHalves(vector).buffer);
  const bytes = new Uint8Array(halves.length + (look?.length ?? 0));
  bytes.set(halves);
  if (look) bytes.set(look, halves.length);
  return toBase64(bytes);
}

export const unknownItem = (id: string): Refusal =>
  new Refusal(
    `No item ${id.slice(0, 64)} is in the index`,
    "32 hexadecimal digits, as answers give them",
    "It may have been deleted: search for its picture",
    "unknown_item",
  );
