/** From a request to the nearest items, and how sure that is (`search/service.py`). */

import type { Chunks } from "../bytes/chunks";
import { Container } from "../bytes/container";
import { fromHalves } from "../bytes/float16";
import type {
  FacetsAnswer,
  Filters,
  Item,
  ItemAnswer,
  ItemsAnswer,
  Match,
  Place,
  SearchAnswer,
  StatsAnswer,
  Verdict,
} from "../endpoint/contract";
import { Judge, type Judgement, type StoredJudge } from "./confidence/judge";
import { type IndexedItem, Items, type Known } from "./format/items";
import type { Manifest } from "./format/manifest";
import { type PartFiles, Rows } from "./format/rows";
import { type Projection, Space } from "./format/space";
import { classify } from "./nearDuplicates/verdict";
import { noticesOf } from "./notices";
import { encodeVector, type Query, QueryReader, type Sought, unknownItem } from "./query";
import { countFacets } from "./search/facetCounts";
import { Fusion } from "./search/fusion";
import type { Hit } from "./search/grouping";
import { rounded } from "./search/linear";
import { type Cursor, type Order, readCursor, writeCursor } from "./search/order";
import { type Hits, Searcher } from "./search/searcher";

type Bytes = Uint8Array<ArrayBuffer>;

/** The files of an export that are there before the first search. */
export interface ExportFiles {
  space: Bytes | null;
  judge: Bytes;
  hidden: Bytes | null;
  parts: PartFiles[];
}

/** What rounding to the digits of an answer adds to a similarity at most (`search/service.py`). */
const ROUNDED = 5e-7;
const RANK: Record<Verdict, number> = { similar: 0, edited: 1, exact: 2 };

/** An export that is in memory, and answers. */
export class LocalSearch {
  readonly rows: Rows;
  readonly judge: Judge;
  private readonly space: Space;
  private readonly searcher: Searcher;
  private readonly items: Items;
  private readonly reader: QueryReader;
  /** Items that were said not to match an item. */
  private readonly hidden: Readonly<Record<string, string[]>>;

  constructor(
    readonly manifest: Manifest,
    files: ExportFiles,
    chunks: Chunks,
    base: string,
  ) {
    const { constants, space } = manifest;
    this.rows = new Rows(manifest, files.parts);
    this.space = new Space(
      space.file && files.space ? readProjection(space.file.name, files.space) : null,
      space.dimension,
    );
    const judge = Container.open(manifest.judge.name, files.judge, "export_judge");
    const sampled = judge.tensor("sample_rows") as Uint32Array;
    this.judge = new Judge(judge.json<StoredJudge>("judge"), sampled, this.rows, this.space, constants);
    this.hidden = files.hidden
      ? Container.open(manifest.hidden?.name ?? "", files.hidden, "export_hidden").json("hidden")
      : {};
    this.searcher = new Searcher(this.rows, constants);
    this.items = new Items(manifest, this.rows, chunks, base);
    this.reader = new QueryReader(manifest, this.rows, this.space, this.judge, this.items);
  }

  async search(request: Sought, signal?: AbortSignal): Promise<SearchAnswer> {
    const started = performance.now();
    const times: Record<string, number> = {};
    let last = started;
    const took = (stage: string): void => {
      times[stage] = rounded(performance.now() - last, 2);
      last = performance.now();
    };
    const query = await this.reader.read(request, signal);
    const isUnsafe = this.reader.isUnsafe(query);
    const nothing: Hits = { hits: [], nearest: null, next: null, isListed: false, total: null };
    last = performance.now();
    const hits = isUnsafe ? nothing : await this.scan(request, query, signal);
    took("scan");
    const judgement = this.judge.judge(hits, namesOf(query), query.isAcross);
    took("confidence");
    const known = await this.matches(query, hits, judgement, request, signal);
    const least = request.min_confidence ?? 0;
    const matches = known.filter((match) => match.confidence >= least).slice(0, request.k ?? 12);
    took("items");
    const surest = matches.reduce((best, { confidence }) => Math.max(best, confidence), 0);
    // The nearest that show nothing have none, and say nothing about others. On other pages the nearest are not shown.
    const isNearest = (request.sort ?? "likeness") === "likeness" && !request.after;
    const held = surest > 0 || !isNearest ? Math.max(judgement.held, surest) : 0;
    const confidence = rounded(held, 4);
    const guess = isNearest ? this.guess(matches, confidence) : null;
    times["total"] = rounded(performance.now() - started, 2);
    const isLost = hits.hits.length > 0 && known.length === 0;
    const notices = isUnsafe ? [] : noticesOf(this.manifest, this.rows, request, this.goesOn(request, query), isLost);
    return {
      matches,
      confidence,
      no_confident_match: held < judgement.confident,
      mode: request.mode ?? "fast",
      ...(guess && { guess }),
      labels: [...query.labels],
      ...(query.safety && { safety: { unsafe: isUnsafe, probabilities: query.safety } }),
      query: this.queryAnswer(query),
      index: this.manifest.index,
      ...(request.facets && { facets: this.facets(request.filters ?? {}) }),
      next: writeCursor(hits.next, request, query.placed?.unit ?? null),
      total: hits.total,
      timing_ms: times,
      ...(notices.length > 0 && { notice: notices.map(({ text }) => text).join(" "), notices }),
    };
  }

  private goesOn(request: Sought, query: Query): Cursor | null {
    return readCursor(request, query.placed?.unit ?? null, this.manifest.id);
  }

  facets(filters: Filters): FacetsAnswer {
    const allowed = this.rows.allowed(filters);
    const parts = this.rows.parts.map(({ columns, start, stop }) => ({
      columns,
      rows: Array.from({ length: stop - start }, (_, row) => row).filter((row) => !allowed || allowed[start + row]),
    }));
    return countFacets(parts, this.rows.types, this.manifest.constants.facets);
  }

  async item(id: string): Promise<ItemAnswer> {
    const row = this.rows.find(id);
    const indexed = row === null ? null : (await this.items.get([row])).get(row)?.indexed;
    if (!indexed) throw unknownItem(id);
    const { item, indexed_at, width, height, labels = [] } = indexed;
    return { item, indexed_at, width, height, labels };
  }

  /** What an answer is judged by, without labels, as merges learn from it; empty if it was not fitted. */
  async features(request: Sought): Promise<Record<string, number>> {
    const query = await this.reader.read(request);
    const { nearest } = await this.scan(request, query);
    return nearest ? this.judge.features(nearest) : {};
  }

  /** Some items, spread over the index; the same ones as long as the index does not change. */
  async sample(limit: number): Promise<ItemsAnswer> {
    const { count } = this.rows;
    const most = Math.min(limit, count);
    const rows = Array.from({ length: most }, (_, at) => Math.trunc((at * (count - 1)) / Math.max(most - 1, 1)));
    const found = await this.items.get(rows);
    return { items: rows.flatMap((row) => found.get(row)?.indexed?.item ?? []) };
  }

  /** @param model As `model.json` describes it. */
  stats(model: StatsAnswer["model"], device: NonNullable<StatsAnswer["device"]>): StatsAnswer {
    const { images, generation } = this.manifest.index;
    const segments = this.rows.segments.length;
    return { images, generation, model, device, segments, fresh: 0, searches: 0, stages_ms: {}, capabilities: [] };
  }

  private async scan(request: Sought, query: Query, signal?: AbortSignal): Promise<Hits> {
    const { constants, settings } = this.manifest;
    const { across, labelWords } = this.judge;
    const { placed, look } = query;
    const fusion =
      query.isAcross && across && placed?.full && look
        ? new Fusion(placed.full, look, across.subtracted, across.catalogue, this.space, constants.fusion, labelWords)
        : null;
    const hidden = query.item === null ? [] : (this.hidden[this.rows.id(query.item)] ?? []);
    const named = [...hidden, ...(request.leave_out ?? [])].map((id) => this.rows.find(id));
    const leaveOut = new Set([...named, ...query.items, query.item].filter((row) => row !== null));
    const base = { query: placed, leaveOut, fusion, judged: query.judged };
    let order: Order = {
      sort: request.sort ?? "likeness",
      nearest: Math.min(request.nearest ?? 0, settings.k_max),
      after: this.goesOn(request, query),
      // Another order would be lost.
      variety: (request.sort ?? "likeness") === "likeness" ? (request.variety ?? 0) : 0,
      byProduct: request.group ?? true,
      similarityMin: typeof request.min_similarity === "number" ? request.min_similarity - ROUNDED : null,
      among: null,
      copies: new Map(),
    };
    const least = request.min_confidence ?? 0;
    if (placed && (least > 0 || order.sort === "most_changed")) {
      order = { ...order, ...(await this.sureRows(query, least, base, order, signal)) };
    }
    const k = Math.min(request.k ?? 12, settings.k_max);
    return this.searcher.search({ ...base, k, filters: request.filters ?? {}, order });
  }

  /** The rows that are sure enough, null for all, and the query's copies. */
  private async sureRows(
    query: Query,
    least: number,
    base: Pick<Parameters<Searcher["search"]>[0], "query" | "leaveOut" | "fusion" | "judged">,
    order: Order,
    signal?: AbortSignal,
  ): Promise<Pick<Order, "among" | "copies">> {
    const { copy_confidence: worth } = this.manifest.constants.search;
    const plain: Order = { ...order, sort: "likeness", after: null, variety: 0, byProduct: false, similarityMin: null };
    const { nearest } = this.searcher.search({ ...base, k: 1, filters: {}, order: plain });
    if (!nearest) return { among: null, copies: new Map() };
    const asked = nearest.query.unit;
    const hits = nearest.rows.map((row, rank): Hit => {
      return { row, rank, similarity: this.rows.vectors.similarity(row, asked), duplicates: [], product: [] };
    });
    const near: Hits = { hits, nearest, next: null, isListed: false, total: null };
    const known = await this.items.get(nearest.rows, signal);
    const verdicts = this.verdicts(query, hits, known);
    const sure = this.judge
      .judge(near, namesOf(query), query.isAcross)
      .matches.map((one, at) => rounded(Math.max(one, worth[verdicts[at] ?? "similar"]), 4));
    // All rows behind the nearest are as sure as the last of these.
    const isEndless = sure.length > 0 && (sure.at(-1) as number) >= least;
    return {
      among: isEndless ? null : new Set(nearest.rows.filter((_, at) => (sure[at] as number) >= least)),
      copies: new Map(hits.filter((_, at) => verdicts[at] !== "similar").map((hit) => [hit.row, hit.similarity])),
    };
  }

  /** For each hit, the strongest verdict that one of the query's pictures gives it. */
  private verdicts(query: Query, hits: readonly Hit[], known: ReadonlyMap<number, Known>): Verdict[] {
    const similarities = hits.map(({ similarity }) => similarity);
    const hashes = hits.map(({ row }) => known.get(row)?.hash ?? null);
    const found = query.asked.map((asked) => classify(similarities, hashes, asked, this.manifest.constants.verdict));
    return hits.map((_, at) =>
      found.reduce<Verdict>(
        (best, one) => (RANK[one[at] as Verdict] > RANK[best] ? (one[at] as Verdict) : best),
        "similar",
      ),
    );
  }

  /** All hits whose items are known. */
  private async matches(
    query: Query,
    { hits }: Hits,
    { matches }: Judgement,
    request: Sought,
    signal?: AbortSignal,
  ): Promise<Match[]> {
    const shown = hits.flatMap(({ row, duplicates, product }) => [row, ...duplicates, ...product]);
    const known = await this.items.get(shown, signal);
    const verdicts = this.verdicts(query, hits, known);
    const { copy_confidence: worth } = this.manifest.constants.search;
    const isOwn = (request.sort ?? "likeness") !== "likeness";
    return hits.flatMap((hit, at) => {
      const verdict = verdicts[at] as Verdict;
      const sure = Math.max(matches[at] as number, worth[verdict]);
      return this.match(hit, verdict, sure, known, query.blank !== null, isOwn) ?? [];
    });
  }

  /** Null if the item is lost. */
  private match(
    hit: Hit,
    found: Verdict,
    sure: number,
    known: ReadonlyMap<number, Known>,
    isBlank: boolean,
    isOwn: boolean,
  ): Match | null {
    const indexedOf = (row: number) => known.get(row)?.indexed ?? [];
    const own = known.get(hit.row)?.indexed;
    const places = [hit.row, ...hit.duplicates].flatMap(indexedOf).sort((a, b) => {
      // The value that an order sorts by is the hit's own.
      if (isOwn && (a === own) !== (b === own)) return a === own ? -1 : 1;
      return compareOffers(a, b);
    });
    const [first] = places;
    if (!first) return null;
    const isEmpty = isBlank || first.blank !== undefined;
    const isPictured = !Number.isNaN(hit.similarity);
    return {
      item: first.item,
      similarity: isPictured ? rounded(hit.similarity, 6) : null,
      confidence: rounded(isEmpty ? 0 : sure, 4),
      verdict: isPictured ? (isEmpty ? "similar" : found) : null,
      ...(places.length > 1 && { places: places.map(offerOf) }),
      ...(first.labels && { labels: first.labels }),
      indexed_at: first.indexed_at,
      product: hit.product.flatMap(indexedOf).map(offerOf),
    };
  }

  /** The collection that the nearest matches vote for with their odds; null if none names one. */
  private guess(matches: readonly Match[], confidence: number): SearchAnswer["guess"] {
    const votes = new Map<string, number>();
    for (const { item, confidence: sure } of matches.slice(0, this.manifest.constants.search.guess_from)) {
      const name = item.collection ?? "";
      votes.set(name, (votes.get(name) ?? 0) + sure / (1.001 - sure));
    }
    const total = [...votes.values()].reduce((sum, one) => sum + one, 0);
    const [best] = [...votes].filter(([name]) => name).sort(([, a], [, b]) => b - a);
    if (!best || total <= 0) return null;
    return { collection: best[0], probability: rounded((best[1] / total) * confidence, 4) };
  }

  private queryAnswer({ placed, blank, look, isAcross, item, size }: Query): SearchAnswer["query"] {
    // A vector alone does not show that nothing is in the picture, so none is returned to link to.
    const vector = blank === null && placed?.full ? encodeVector(placed.full, isAcross ? look : null) : null;
    return {
      ...(vector && { vector }),
      ...(isAcross && { is_across: true }),
      ...(item !== null && { item: this.rows.id(item) }),
      ...(size && { width: size[0], height: size[1] }),
      ...(blank !== null && { blank }),
    };
  }
}

const namesOf = ({ labels }: Query): string[] => labels.map(({ name }) => name);

function readProjection(name: string, bytes: Bytes): Projection {
  const container = Container.open(name, bytes, "export_space");
  return {
    origin: new Float32Array(container.tensor("origin") as Float32Array),
    matrix: fromHalves(container.tensor("matrix") as Uint16Array),
    inverse: new Float32Array(container.tensor("inverse") as Float32Array),
  };
}

/** Places whose picture is gone come last; otherwise the newest and the cheapest come first. */
function compareOffers(a: IndexedItem, b: IndexedItem): number {
  const keys = [a, b].map(({ item, indexed_at }) => {
    const day = (item.date || indexed_at).slice(0, 10).replaceAll("-", "");
    const isGone = "picture_gone" in ((item as Item).extra ?? {});
    return [Number(isGone), /^\d+$/.test(day) ? -Number(day) : 0, item.price ?? Number.POSITIVE_INFINITY] as const;
  });
  const [mine, theirs] = keys as [(typeof keys)[0], (typeof keys)[0]];
  for (let at = 0; at < mine.length; at += 1) {
    const [x, y] = [mine[at] as number, theirs[at] as number];
    if (x !== y) return x < y ? -1 : 1;
  }
  return 0;
}

const offerOf = ({ item: { id, title, page_url, image_url, price, currency } }: IndexedItem): Place => ({
  item: id,
  ...(title && { title }),
  page_url: page_url ?? null,
  image_url,
  price: price ?? null,
  currency: currency ?? null,
});
