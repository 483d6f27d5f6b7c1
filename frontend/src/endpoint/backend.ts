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

/** What answers the page: a server at a URL (`Api`), or the files of an export (`LocalIndex`). All raise `Failure`. */
export interface Backend {
  search(request: SearchRequest, picture: Blob | null, signal: AbortSignal): Promise<SearchAnswer>;
  searches(searches: SearchRequest[], signal?: AbortSignal): Promise<SearchesAnswer>;
  compare(request: CompareRequest, signal: AbortSignal): Promise<CompareAnswer>;
  /** Words of the catalogue that complete what is typed. */
  suggest(text: string, signal: AbortSignal): Promise<SuggestAnswer>;
  explain(request: SearchRequest, picture: Blob | null, match: string, signal: AbortSignal): Promise<ExplainAnswer>;
  /** Records that a result is not a match, or, without a result, that the query is harmless. Works while the page closes. */
  feedback(item: string | null, query: { item: string } | { vector: string }): Promise<void>;
  /** Counts over what passes the filters; with words, over what has some of them. */
  facets(filters: Filters, text?: string): Promise<FacetsAnswer>;
  examples(limit: number): Promise<ItemsAnswer>;
  item(id: string): Promise<ItemAnswer>;
  /** What a device needs to embed pictures itself, and the URL of this description; null if it may not. */
  model(): Promise<{ model: DeviceModel; base: string } | null>;
  stats(): Promise<StatsAnswer>;
}
