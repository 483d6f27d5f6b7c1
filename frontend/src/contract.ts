/**
 * The HTTP contract of the search function, as `shared/visor/web/contract.py` has it.
 * The server leaves out what is at its default, so everything that has a default is optional here.
 */

/** x, y, width, height as fractions of the picture's sides. */
export type Box = [number, number, number, number];

export interface PriceRange {
  min?: number | null;
  max?: number | null;
}

export interface Filters {
  collection?: string[];
  source?: string[];
  country?: string[];
  currency?: string[];
  label?: string[];
  price?: PriceRange | null;
  date_from?: string | null;
  date_to?: string | null;
}

export type Mode = "fast" | "exact";

export interface SearchRequest {
  image?: string | null;
  url?: string | null;
  vector?: string | null;
  item?: string | null;
  box?: Box | null;
  exclude?: Box[];
  k?: number;
  filters?: Filters;
  mode?: Mode;
  metric?: string | null;
  facets?: boolean;
}

export interface Item {
  id: string;
  source: string;
  key: string;
  image_url: string;
  page_url?: string | null;
  title?: string;
  description?: string | null;
  price?: number | null;
  currency?: string | null;
  collection?: string | null;
  country?: string | null;
  date?: string | null;
  licence?: string | null;
  author?: string | null;
  extra?: Record<string, string>;
}

export interface Label {
  name: string;
  probability: number;
}

export interface Place {
  item: string;
  title?: string;
  page_url?: string | null;
  image_url?: string | null;
  price?: number | null;
  currency?: string | null;
}

export type Verdict = "exact" | "edited" | "similar";

export interface Match {
  item: Item;
  similarity: number;
  confidence: number;
  verdict: Verdict;
  places?: Place[];
  labels?: Label[];
  indexed_at?: string | null;
}

export interface SearchAnswer {
  matches: Match[];
  confidence: number;
  no_confident_match: boolean;
  mode: "fast" | "exact" | "metric";
  metric?: string | null;
  guess?: { collection: string; probability: number } | null;
  labels?: Label[];
  safety?: { unsafe: boolean; probabilities: Record<string, number> } | null;
  query: {
    vector?: string | null;
    item?: string | null;
    width?: number | null;
    height?: number | null;
    format?: string | null;
  };
  index: { images: number; generation: number; model: string };
  facets?: FacetsAnswer | null;
  timing_ms: Record<string, number>;
  notice?: string | null;
}

export interface FacetValue {
  value: string;
  count: number;
}

export interface FacetsAnswer {
  images: number;
  collection?: FacetValue[];
  source?: FacetValue[];
  country?: FacetValue[];
  currency?: FacetValue[];
  label?: FacetValue[];
  price_min?: number | null;
  price_max?: number | null;
}

export interface ItemsAnswer {
  items: Item[];
}

export interface ItemAnswer {
  item: Item;
  indexed_at: string;
  width: number;
  height: number;
  labels?: Label[];
}

export interface StatsAnswer {
  images: number;
  generation: number;
  model: { name: string; fingerprint: string; dimension: number; source: string; licence: string };
  segments: number;
  fresh: number;
  searches: number;
  stages_ms: Record<string, Record<string, number>>;
  capabilities?: string[];
  notice?: string | null;
}

export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  found?: string;
  valid?: string;
  remedy?: string;
}
