/**
 * The HTTP contract of the search function, by the names of `shared/visor/web/schema.py`.
 * The types come from its OpenAPI document: `npm run contract` writes them anew. The server leaves out what is at its
 * default, so everything that has a default is optional.
 */
import type { components } from "../openapi";

type Schemas = components["schemas"];

/** x, y, width, height as fractions of the picture's sides. */
export type Box = [number, number, number, number];
export type Verdict = Match["verdict"];
export type Mode = NonNullable<SearchRequest["mode"]>;

export type AttributeFacet = Schemas["AttributeFacet"];
export type CompareAnswer = Schemas["CompareAnswer"];
export type CompareRequest = Schemas["CompareRequest"];
export type Condition = Schemas["Condition"];
export type DeviceModel = Schemas["DeviceModel"];
export type Example = Schemas["Example"];
export type FacetsAnswer = Schemas["FacetsAnswer"];
export type FacetValue = Schemas["FacetValue"];
export type FeedbackRequest = Schemas["FeedbackRequest"];
export type Filters = Schemas["Filters"];
export type Highlight = Schemas["Highlight"];
export type Item = Schemas["Item"];
export type ItemAnswer = Schemas["ItemAnswer"];
export type ItemsAnswer = Schemas["ItemsAnswer"];
export type Label = Schemas["Label"];
export type Match = Schemas["Match"];
export type Picture = Schemas["Picture"];
export type Place = Schemas["Place"];
export type Problem = Schemas["Problem"];
export type QueryAnswer = Schemas["QueryAnswer"];
export type RangeCount = Schemas["RangeCount"];
export type Region = Schemas["Region"];
export type SearchAnswer = Schemas["SearchAnswer"];
export type SearchesAnswer = Schemas["SearchesAnswer"];
/** What to search for is named here, or is the picture beside it. */
export type SearchRequest = Partial<Schemas["SearchRequest"]>;
export type Seen = Schemas["Seen"];
export type Sort = NonNullable<SearchRequest["sort"]>;
export type StatsAnswer = Schemas["StatsAnswer"];
export type SuggestAnswer = Schemas["SuggestAnswer"];

/** The stages of `timing_ms`, in their order. */
export const STAGES = ["fetch", "decode", "embed", "scan", "confidence", "items"] as const;
