/** The nearest pictures, and listings of all that pass, page by page (`index/search/searcher.py`, `listing.py`). */
import type { Filters } from "../../endpoint/contract";
import type { Constants } from "../format/manifest";
import type { Rows } from "../format/rows";
import type { Placed } from "../format/space";
import type { Fusion } from "./fusion";
import { type Candidates, Grouping, type Hit, NOTHING, without } from "./grouping";
import { dot, type Floats } from "./linear";
import { type Cursor, headOf, isPlain, type Order, sortValues } from "./order";
import { leastRows } from "./select";

export interface Question {
  /** Null: all that passes. */
  query: Placed | null;
  k: number;
  filters: Filters;
  leaveOut: ReadonlySet<number>;
  fusion: Fusion | null;
  order: Order;
  /** What confidence is computed from, if that is not the query. */
  judged: Placed | null;
}

/** The query and the rows nearest to it, nearest first, whatever the filters. */
export interface Nearest {
  query: Placed;
  rows: readonly number[];
  /** Similarities of all candidates, descending. */
  similarities: readonly number[];
}

export interface Hits {
  hits: readonly Hit[];
  nearest: Nearest | null;
  next: Cursor | null;
  /** The hits are those of a later page or another order: the first of them need not be the nearest. */
  isListed: boolean;
  total: number | null;
}

interface Page {
  hits: Hit[];
  next: Cursor | null;
}

/** How near each row is to a query, computed on demand. */
class Likeness {
  private readonly words: Float64Array | null;
  private readonly fused: Floats | null;
  /** (n,) cosines with the vector with which the codes are scanned. */
  private readonly scanned: Floats;

  constructor(
    private readonly rows: Rows,
    readonly projected: Floats,
    readonly fusion: Fusion | null,
  ) {
    this.words = fusion ? rows.wordSums(fusion.wordWeights) : null;
    this.fused = fusion ? new Float32Array(rows.count).fill(Number.NaN) : null;
    this.scanned = rows.vectors.all(fusion ? fusion.projected : projected);
  }

  /** What rows are ordered by. */
  of(row: number): number {
    if (!this.fusion || !this.fused || !this.words) return this.scanned[row] as number;
    let found = this.fused[row] as number;
    if (Number.isNaN(found)) {
      found = this.fusion.similarity(this.rows, row, this.words[row] as number);
      this.fused[row] = found;
    }
    return found;
  }

  /** The similarity that is shown for a row. */
  cosine(row: number): number {
    return this.fusion ? this.rows.vectors.similarity(row, this.projected) : (this.scanned[row] as number);
  }

  /** The nearest rows that may be returned, at most `want`. */
  nearest(allowed: Uint8Array | null, want: number, constants: Constants): Candidates {
    const { rows } = this;
    const among = this.words ? this.candidates(this.words, allowed, want, constants) : ([0, rows.count] as const);
    const byId = (a: number, b: number) => rows.compareIds(a, b);
    const found = leastRows(among, (row) => -this.of(row), want, byId, allowed);
    return { rows: found, similarities: found.map((row) => this.of(row)) };
  }

  /** The nearest of each segment by vector, and those whose words fit. */
  private candidates(
    words: Float64Array,
    allowed: Uint8Array | null,
    want: number,
    { search, fusion }: Constants,
  ): Set<number> {
    const { rows, scanned } = this;
    const byId = (a: number, b: number) => rows.compareIds(a, b);
    return new Set(
      rows.segments.flatMap(([start, stop]) => {
        const share = Math.floor((search.rerank * (stop - start)) / rows.count);
        const depth = Math.max(want, search.rerank_per_segment, share);
        const near = leastRows([start, stop], (row) => -(scanned[row] as number), depth, byId, allowed);
        const isWorded = new Uint8Array(rows.count);
        for (let row = start; row < stop; row += 1) {
          isWorded[row] = Number((words[row] as number) > fusion.words_min && (!allowed || allowed[row] === 1));
        }
        const worded = leastRows(
          [start, stop],
          (row) => -(words[row] as number),
          search.rerank,
          (a, b) => a - b,
          isWorded,
        );
        return [...near, ...worded];
      }),
    );
  }
}

export class Searcher {
  constructor(
    private readonly rows: Rows,
    private readonly constants: Constants,
  ) {}

  search(question: Question): Hits {
    const { sort, nearest } = question.order;
    if (!nearest || sort === "likeness") return this.ordered(question);
    const order = { ...question.order, nearest: 0 };
    const first: Order = { ...order, sort: "likeness", after: null, variety: 0 };
    const near = this.ordered({ ...question, k: nearest, order: first });
    const among = new Set(near.hits.flatMap(({ row, duplicates, product }) => [row, ...duplicates, ...product]));
    return this.ordered({ ...question, order: { ...order, among } });
  }

  private ordered(question: Question): Hits {
    const { query, filters, k, leaveOut, fusion, judged } = question;
    const { rows, constants } = this;
    const nothing = { hits: [], nearest: null, next: null, isListed: false, total: null };
    if (rows.count === 0) return nothing;
    const order = { ...question.order, byProduct: question.order.byProduct && rows.manifest.has_products };
    const likeness = query ? new Likeness(rows, query.unit, fusion) : null;
    const allowed = rows.allowed(filters);
    const listing = new Listing(rows, new Grouping(rows, constants), constants, allowed, order, likeness, leaveOut);
    const { nearest, rerank } = constants.search;
    const depth = fusion ? rerank : nearest;
    let most = depth + leaveOut.size;
    let found: Candidates | null = null;
    let page: Page | null = null;
    let total: number | null = null;
    if (likeness && isPlain(order) && !(fusion && order.similarityMin !== null)) {
      const first = listing.firstPage(likeness, k, depth);
      ({ page, found, total, most } = first);
    }
    const isListed = page === null;
    if (!page) {
      page = listing.page(k, order.after ?? { generation: rows.manifest.id, last: null, shown: [] });
      total = listing.total;
    }
    let { hits } = page;
    if (order.byProduct) hits = listing.withProducts(hits);
    if (!query || !likeness) {
      return {
        ...nothing,
        hits: hits.map((hit) => ({ ...hit, similarity: Number.NaN })),
        next: page.next,
        isListed,
        total,
      };
    }
    let asked = query;
    if (!found || isListed || allowed || judged) {
      // What is known about the query does not depend on the filters.
      asked = judged ?? query;
      const judging = judged ? new Likeness(rows, judged.unit, fusion) : likeness;
      found = without(judging.nearest(null, most, constants), leaveOut);
      const ranks = new Map(found.rows.map((row, rank) => [row, rank]));
      hits = hits.map((hit) => ({ ...hit, rank: ranks.get(hit.row) ?? ranks.size }));
    }
    const around = { query: asked, rows: found.rows.slice(0, nearest), similarities: found.similarities };
    return { hits, nearest: around, next: page.next, isListed, total };
  }
}

/** All rows that pass, in one order, returned page by page to the end. */
class Listing {
  private listed: number[] | null = null;
  private readonly values: Float64Array | null;

  constructor(
    private readonly rows: Rows,
    private readonly grouping: Grouping,
    private readonly constants: Constants,
    private readonly allowed: Uint8Array | null,
    private readonly order: Order,
    private readonly likeness: Likeness | null,
    private readonly leaveOut: ReadonlySet<number>,
  ) {
    this.values = sortValues(rows, order);
  }

  get total(): number {
    return this.order.byProduct ? this.grouping.firstOfProduct(this.all).length : this.all.length;
  }

  /** The rows that may be returned, in no order. */
  private get all(): number[] {
    this.listed ??= this.those(() => true);
    return this.listed;
  }

  private those(isAsked: (row: number) => boolean): number[] {
    const { among, similarityMin } = this.order;
    const least = similarityMin === null ? null : Math.fround(similarityMin);
    const found: number[] = [];
    for (let row = 0; row < this.rows.count; row += 1) {
      if (this.allowed && !this.allowed[row]) continue;
      if (this.leaveOut.has(row) || (among && !among.has(row)) || !isAsked(row)) continue;
      if (least !== null && this.likeness && this.likeness.cosine(row) < least) continue;
      found.push(row);
    }
    return found;
  }

  private likenessOf(row: number): number {
    return this.likeness?.of(row) ?? 0;
  }

  private compare = (a: number, b: number): number =>
    (this.values ? (this.values[a] as number) - (this.values[b] as number) || 0 : 0) ||
    this.likenessOf(b) - this.likenessOf(a) ||
    this.rows.compareIds(a, b);

  /** The first of these rows in order. */
  private ordered(among: readonly number[], want: number): number[] {
    const { values } = this;
    const key = values ? (row: number) => values[row] as number : (row: number) => -this.likenessOf(row);
    return leastRows(new Set(among), key, want, this.compare, null);
  }

  withProducts(hits: readonly Hit[]): Hit[] {
    const wanted = new Set(hits.map(({ row }) => this.rows.products[row]).filter((product) => product !== 0));
    if (wanted.size === 0) return [...hits];
    const others = this.those((row) => wanted.has(this.rows.products[row]));
    return this.grouping.withProducts(hits, this.ordered(others, others.length));
  }

  /** The nearest k, without going through all; no page if too many of the nearest are of too few products. */
  firstPage(
    likeness: Likeness,
    k: number,
    depth: number,
  ): { page: Page | null; found: Candidates | null; total: number | null; most: number } {
    const { rows, leaveOut, order, allowed } = this;
    const { widenings } = this.constants.search;
    const matching = allowed ? allowed.reduce((sum, one) => sum + one, 0) : rows.count;
    let total: number | null = this.passing();
    let want = k + leaveOut.size + Math.min(k, 20);
    let [near, isWhole, most] = [NOTHING, false, want];
    let grouped = { hits: [] as Hit[], isMore: false };
    for (let widening = 0; ; widening += 1) {
      if (widening === widenings) {
        if (order.byProduct) return { page: null, found: null, total: null, most };
        break;
      }
      most = Math.max(want, depth + leaveOut.size);
      const found = likeness.nearest(allowed, most, this.constants);
      near = without(found, leaveOut);
      const first = { rows: near.rows.slice(0, want), similarities: near.similarities.slice(0, want) };
      grouped = this.grouping.hits(first, k, leaveOut, order.byProduct, allowed);
      isWhole = found.rows.length < most || found.rows.length >= matching;
      if (isWhole || grouped.hits.length >= k) break;
      want *= 4;
    }
    if (isWhole && total === null) {
      total = order.byProduct ? this.grouping.firstOfProduct(near.rows).length : near.rows.length;
    }
    // The cosine is shown, and decides what is a copy, whatever determined the rank.
    let hits = likeness.fusion
      ? grouped.hits.map((hit) => ({ ...hit, similarity: dot(this.grouping.unit(hit.row), likeness.projected) }))
      : grouped.hits;
    let isMore = grouped.isMore || (!(isWhole && near.rows.length <= want) && (total === null || total > hits.length));
    const least = order.similarityMin;
    if (least !== null) {
      const enough = hits.filter(({ similarity }) => similarity >= least);
      isMore &&= enough.length === hits.length;
      [hits, total] = [enough, isMore ? null : enough.length];
    }
    const next = isMore ? { generation: rows.manifest.id, last: null, shown: this.headsOf(hits) } : null;
    return { page: { hits, next }, found: near, total, most };
  }

  /** Number of rows that may be returned, or of products. */
  private passing(): number {
    const { rows, allowed, leaveOut, order } = this;
    if (order.byProduct) {
      if (!allowed && leaveOut.size === 0) return rows.manifest.products;
      const every = Array.from({ length: rows.count }, (_, row) => row);
      const given = every.filter((row) => (!allowed || allowed[row]) && !leaveOut.has(row));
      return this.grouping.firstOfProduct(given).length;
    }
    const count = allowed ? allowed.reduce((sum, one) => sum + one, 0) : rows.count;
    return count - [...leaveOut].filter((row) => !allowed || allowed[row]).length;
  }

  /** The next k hits after a cursor. */
  page(k: number, cursor: Cursor): Page {
    const { variety } = this.order;
    if (!variety || cursor.last) return this.plainPage(k, cursor);
    const pool = this.next(new Set(), this.constants.search.varied);
    const last = pool.hits.at(-1);
    if (!last) return { hits: [], next: null };
    const isShown = this.shownBy(cursor);
    const isChosen = pool.hits.map(({ row }) => isShown(row));
    const rows = pool.hits.map(({ row }) => row);
    const found = { rows, similarities: rows.map((row) => this.likenessOf(row)) };
    const picked = this.grouping.varied(found, isChosen, k, variety);
    const hits = picked.map((place) => pool.hits[place] as Hit);
    if (isChosen.filter(Boolean).length + picked.length < rows.length) {
      return { hits, next: { ...cursor, shown: [...cursor.shown, ...this.headsOf(hits)] } };
    }
    const behind = this.plainPage(k - hits.length, this.behind(cursor, last.row));
    return { hits: [...hits, ...behind.hits], next: behind.next };
  }

  private plainPage(k: number, cursor: Cursor): Page {
    const { hits, isMore } = this.next(this.before(cursor), k);
    const last = hits.at(-1);
    if (k > 0 && !last) return { hits: [], next: null };
    return { hits, next: isMore ? (last ? this.behind(cursor, last.row) : cursor) : null };
  }

  /** The first k hits that do not repeat earlier rows, and whether there are more. */
  private next(before: ReadonlySet<number>, k: number): { hits: Hit[]; isMore: boolean } {
    const { products } = this.rows;
    const { byProduct } = this.order;
    const given = new Set([...before].map((row) => (byProduct ? products[row] : 0)).filter(Boolean));
    const left = this.all.filter((row) => !before.has(row) && !(byProduct && given.has(products[row])));
    const earlier = [...before];
    for (let want = k + Math.min(k, 20) + 1; ; want *= 4) {
      const ordered = this.ordered(left, want);
      // A copy of another item of its product does not represent it, whichever page that is on.
      const rows = (byProduct ? this.grouping.firstOfProduct(ordered) : ordered).filter(
        (row) => !earlier.some((other) => this.grouping.isSame(row, other) && this.isFirst(other, earlier)),
      );
      const found = { rows, similarities: rows.map((row) => this.likeness?.cosine(row) ?? Number.NaN) };
      const { hits, isMore } = this.grouping.hits(found, k, this.leaveOut, byProduct, this.allowed);
      if (isMore || want >= left.length) return { hits, isMore };
    }
  }

  /** Whether no earlier row among these has its product. */
  private isFirst(row: number, among: readonly number[]): boolean {
    const { products } = this.rows;
    if (!this.order.byProduct || products[row] === 0) return true;
    return (
      this.ordered(
        among.filter((other) => products[other] === products[row]),
        1,
      )[0] === row
    );
  }

  /** What was returned up to a cursor. */
  private before(cursor: Cursor): Set<number> {
    const { last } = cursor;
    if (!last) return new Set(cursor.shown.length ? this.all.filter(this.shownBy(cursor)) : []);
    const [value, likeness, id] = last;
    return new Set(
      this.all.filter((row) => {
        const own = this.values?.[row] ?? 0;
        if (own !== value) return own < value;
        const near = this.likenessOf(row);
        return near > likeness || (near === likeness && this.rows.id(row) <= id);
      }),
    );
  }

  private behind({ generation }: Cursor, row: number): Cursor {
    return { generation, last: [this.values?.[row] ?? 0, this.likenessOf(row), this.rows.id(row)], shown: [] };
  }

  private shownBy({ shown }: Cursor): (row: number) => boolean {
    const heads = new Set(shown);
    return (row) => heads.has(headOf(this.rows.id(row)));
  }

  private headsOf(hits: readonly Hit[]): string[] {
    return hits.map(({ row }) => headOf(this.rows.id(row)));
  }
}
