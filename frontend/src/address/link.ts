import type { Filters, Mode } from "../endpoint/contract";

/** How to search, apart from what for. */
export interface Options {
  filters: Filters;
  mode: Mode;
  metric: string | null;
  k: number;
}

/** What a link to a result page holds. */
export interface LinkState extends Options {
  query: { vector: string } | { item: string };
  /** The index and model that the page was made with, to tell when they have changed. */
  generation: number | null;
  model: string | null;
}

export const K_DEFAULT = 12;
const LISTS = ["collection", "source", "country", "currency", "label"] as const;

/** The link's part after `#`, without it. */
export function writeLink(state: LinkState): string {
  const parts = new URLSearchParams();
  if ("item" in state.query) parts.set("item", state.query.item);
  for (const name of LISTS) for (const value of state.filters[name] ?? []) parts.append(name, value);
  const { price, date_from, date_to } = state.filters;
  if (price && (isNumber(price.min) || isNumber(price.max)))
    parts.set("price", `${price.min ?? ""}..${price.max ?? ""}`);
  if (date_from) parts.set("from", date_from);
  if (date_to) parts.set("to", date_to);
  if (state.mode !== "fast") parts.set("mode", state.mode);
  if (state.metric) parts.set("metric", state.metric);
  if (state.k !== K_DEFAULT) parts.set("k", String(state.k));
  if (state.generation !== null) parts.set("generation", String(state.generation));
  if (state.model) parts.set("model", state.model);
  // The vector is long: at the end, so that the rest can be read.
  if ("vector" in state.query) parts.set("q", toUrlSafe(state.query.vector));
  return parts.toString();
}

/** What a link asks for, or null where it asks for nothing. Parts that make no sense are left out. */
export function readLink(hash: string): LinkState | null {
  const parts = new URLSearchParams(hash.replace(/^#/, ""));
  const [item, vector] = [parts.get("item"), parts.get("q")];
  if (!item && !(vector && /^[A-Za-z0-9_-]+$/.test(vector))) return null;
  const filters: Filters = {};
  for (const name of LISTS) {
    const values = parts.getAll(name).filter(Boolean);
    if (values.length > 0) filters[name] = values;
  }
  const price = /^(-?[\d.]*)\.\.(-?[\d.]*)$/.exec(parts.get("price") ?? "");
  const [min, max] = [readNumber(price?.[1]), readNumber(price?.[2])];
  if (min !== null || max !== null) filters.price = { ...(min !== null && { min }), ...(max !== null && { max }) };
  const [from, to] = [parts.get("from"), parts.get("to")];
  if (from) filters.date_from = from;
  if (to) filters.date_to = to;
  const k = readNumber(parts.get("k")) ?? K_DEFAULT;
  return {
    query: item ? { item } : { vector: fromUrlSafe(vector ?? "") },
    filters,
    mode: parts.get("mode") === "exact" ? "exact" : "fast",
    metric: parts.get("metric") || null,
    k: Number.isInteger(k) && k >= 1 && k <= 200 ? k : K_DEFAULT,
    generation: readNumber(parts.get("generation")),
    model: parts.get("model") || null,
  };
}

/** How many filters are set; a price range counts once. */
export function countFilters(filters: Filters): number {
  const lists = LISTS.reduce((sum, name) => sum + (filters[name]?.length ?? 0), 0);
  const { price, date_from, date_to } = filters;
  return lists + (price && (isNumber(price.min) || isNumber(price.max)) ? 1 : 0) + (date_from || date_to ? 1 : 0);
}

/** Base64 whose signs need no escaping in an address. */
export const toUrlSafe = (base64: string): string =>
  base64.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");

export function fromUrlSafe(text: string): string {
  const base64 = text.replaceAll("-", "+").replaceAll("_", "/");
  return base64 + "=".repeat((4 - (base64.length % 4)) % 4);
}

const isNumber = (value: number | null | undefined): value is number => typeof value === "number";

function readNumber(text: string | null | undefined): number | null {
  if (!text) return null;
  const value = Number(text);
  return Number.isFinite(value) ? value : null;
}
