/**
 * The HTTP contract of the search function, by the names of `shared/visor/web/schema.py`.
 * The types come from its OpenAPI document: `npm run contract` writes them again. The server leaves out defaults, so
 * every field that has a default is optional.
 */
import type { Match, SearchRequest as WholeSearchRequest } from "../openapi";

export type * from "../openapi";

/** x, y, width, height as fractions of the picture's sides. */
export type Box = [number, number, number, number];
export type Verdict = NonNullable<Match["verdict"]>;
export type Mode = NonNullable<SearchRequest["mode"]>;

/** What to search for is named here, or is the picture that is sent with it. */
export type SearchRequest = Partial<WholeSearchRequest>;
export type Sort = NonNullable<SearchRequest["sort"]>;

/** The stages of `timing_ms`, in their order. */
export const STAGES = ["fetch", "decode", "embed", "scan", "confidence", "items"] as const;
