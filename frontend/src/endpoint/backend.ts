import type {
  CompareAnswer,
  CompareRequest,
  DeviceModel,
  ExplainAnswer,
  FacetsAnswer,
  Filters,
  ItemAnswer,
  ItemsAnswer,
  SearchAnswer,
  SearchesAnswer,
  SearchRequest,
  StatsAnswer,
  SuggestAnswer,
} from "./contract";

/** What answers the page: a server behind an address (`Api`), or the files of an export (`LocalIndex`). All raise `Failure`. */
export interface Backend {
  search(request: SearchRequest, picture: Blob | null, signal: AbortSignal): Promise<SearchAnswer>;
  searches(searches: SearchRequest[], signal?: AbortSignal): Promise<SearchesAnswer>;
  compare(request: CompareRequest, signal: AbortSignal): Promise<CompareAnswer>;
  /** Words of the catalogue that go on with what is typed. */
  suggest(text: string, signal: AbortSignal): Promise<SuggestAnswer>;
  explain(request: SearchRequest, picture: Blob | null, match: string, signal: AbortSignal): Promise<ExplainAnswer>;
  /** Keeps that a result is no match, or, without one, that the query is harmless. Also when the page is being left. */
  feedback(item: string | null, query: { item: string } | { vector: string }): Promise<void>;
  /** Counts over what passes the filters; with words, over what says something of them. */
  facets(filters: Filters, text?: string): Promise<FacetsAnswer>;
  examples(limit: number): Promise<ItemsAnswer>;
  item(id: string): Promise<ItemAnswer>;
  /** What a device needs to look at pictures itself, and where that was told; null where it may not. */
  model(): Promise<{ model: DeviceModel; base: string } | null>;
  stats(): Promise<StatsAnswer>;
}
