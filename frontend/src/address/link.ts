import type { Condition, Filters, Mode, Sort } from "../endpoint/contract";
import { countFilters, isBound, LISTS } from "../filters";

/** A picture that matches should be like (`weight` above 0) or not like: an item's, or the visitor's own by its vector. */
export type Example = ({ item: string } | { vector: string }) & { weight: number };

export const idOf = (example: Example): string => ("item" in example ? example.item : example.vector);

/** How to search, apart from the picture. */
export interface Options {
  filters: Filters;
  mode: Mode;
  metric: string | null;
  k: number;
  /** Words, alone or with a picture. */
  text: string;
  examples: readonly Example[];
  sort: Sort;
  /** How different from each other matches should be, 0 to 1. */
  variety: number;
  /** One result per product. */
  group: boolean;
}

/** What a link to a result page holds. */
export interface LinkState extends Options {
  /** Null if words, examples or filters alone say what is searched for. */
  query: { vector: string } | { item: string } | null;
  /** The index and model that the page was made with, to tell when they have changed. */
  generation: number | null;
  model: string | null;
}

export const K_DEFAULT = 12;
export const K_MAX = 200;
export const EXAMPLES_MAX = 8;
/** Characters that words may have. */
export const TEXT_MAX = 400;
/** The text as far as it is searched for; cut between characters, which may need two units of a string each. */
export const cutText = (text: string): string => [...text].slice(0, TEXT_MAX).join("");
const VECTOR = /^[\w-]+$/;
/** The weight of an item that is, or is not, what is searched for. */
export const LIKE = 1;
export const UNLIKE = -0.5;
export const SORTS: readonly Sort[] = [
  "likeness",
  "price_up",
  "price_down",
  "newest",
  "oldest",
  "largest",
  "smallest",
  "most_changed",
];
export const DEFAULT_OPTIONS: Options = {
  filters: {},
  mode: "fast",
  metric: null,
  k: K_DEFAULT,
  text: "",
  examples: [],
  sort: "likeness",
  variety: 0,
  group: true,
};

/** Whether there is something to search for without a picture. */
export const asksWithoutPicture = ({ text, examples, filters }: Options): boolean =>
  text !== "" || examples.some(({ weight }) => weight > 0) || countFilters(filters) > 0;

/** The link's part after `#`, without it. */
export function writeLink(state: LinkState): string {
  const parts = new URLSearchParams();
  if (state.query && "item" in state.query) parts.set("item", state.query.item);
  if (state.text) parts.set("text", state.text);
  const named = (example: Example) => (example.weight > 0 ? "like" : "unlike");
  for (const one of state.examples) if ("item" in one) parts.append(named(one), one.item);
  writeFilters(parts, state.filters);
  if (state.sort !== "likeness") parts.set("sort", state.sort);
  if (state.variety > 0) parts.set("variety", String(state.variety));
  if (!state.group) parts.set("group", "false");
  if (state.mode !== "fast") parts.set("mode", state.mode);
  if (state.metric) parts.set("metric", state.metric);
  if (state.k !== K_DEFAULT) parts.set("k", String(state.k));
  if (state.generation !== null) parts.set("generation", String(state.generation));
  if (state.model) parts.set("model", state.model);
  // Vectors are long: at the end, so that the rest can be read.
  for (const one of state.examples) if ("vector" in one) parts.append(`${named(one)}.q`, toUrlSafe(one.vector));
  if (state.query && "vector" in state.query) parts.set("q", toUrlSafe(state.query.vector));
  return parts.toString();
}

/** What a link searches for, or null if nothing. Parts that make no sense are left out. */
export function readLink(hash: string): LinkState | null {
  const parts = new URLSearchParams(hash.replace(/^#/, ""));
  const [item, vector] = [parts.get("item"), parts.get("q")];
  const k = readNumber(parts.get("k")) ?? K_DEFAULT;
  const sort = SORTS.find((one) => one === parts.get("sort"));
  const variety = readNumber(parts.get("variety")) ?? 0;
  const liked = [...parts].flatMap(([key, value]): Example[] => {
    const [, name, isVector] = /^(like|unlike)(\.q)?$/.exec(key) ?? [];
    if (!name || !value || (isVector && !VECTOR.test(value))) return [];
    const weight = name === "like" ? LIKE : UNLIKE;
    return [isVector ? { vector: fromUrlSafe(value), weight } : { item: value, weight }];
  });
  const options: Options = {
    filters: readFilters(parts),
    mode: parts.get("mode") === "exact" ? "exact" : "fast",
    metric: parts.get("metric") || null,
    k: Number.isInteger(k) && k >= 1 && k <= K_MAX ? k : K_DEFAULT,
    text: cutText((parts.get("text") ?? "").trim()),
    examples: liked.slice(0, EXAMPLES_MAX),
    sort: sort ?? "likeness",
    variety: variety > 0 && variety <= 1 ? variety : 0,
    group: parts.get("group") !== "false",
  };
  const query = item ? { item } : vector && VECTOR.test(vector) ? { vector: fromUrlSafe(vector) } : null;
  if (!query && !asksWithoutPicture(options)) return null;
  return { query, ...options, generation: readNumber(parts.get("generation")), model: parts.get("model") || null };
}

function writeFilters(parts: URLSearchParams, { price, date_from, date_to, attributes, ...lists }: Filters): void {
  for (const name of LISTS) for (const value of lists[name] ?? []) parts.append(name, value);
  if (isBound(price?.min) || isBound(price?.max)) parts.set("price", `${price?.min ?? ""}..${price?.max ?? ""}`);
  if (date_from) parts.set("from", date_from);
  if (date_to) parts.set("to", date_to);
  for (const [name, { any = [], none = [], min, max, missing }] of Object.entries(attributes ?? {})) {
    for (const value of any) parts.append(`any.${name}`, value);
    for (const value of none) parts.append(`none.${name}`, value);
    if (isBound(min)) parts.set(`min.${name}`, String(min));
    if (isBound(max)) parts.set(`max.${name}`, String(max));
    if (typeof missing === "boolean") parts.set(`missing.${name}`, String(missing));
  }
}

function readFilters(parts: URLSearchParams): Filters {
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
  // Somebody else may have written the names, such as `__proto__`.
  const attributes = new Map<string, Condition>();
  for (const [key, value] of parts) {
    const [, how, name] = /^(any|none|min|max|missing)\.(.+)$/s.exec(key) ?? [];
    if (!how || !name || !value) continue;
    const condition = attributes.get(name) ?? {};
    attributes.set(name, condition);
    if (how === "any" || how === "none") condition[how] = [...(condition[how] ?? []), value];
    else if (how === "missing") condition.missing = value === "true";
    else condition[how as "min" | "max"] = readNumber(value) ?? value;
  }
  return attributes.size > 0 ? { ...filters, attributes: Object.fromEntries(attributes) } : filters;
}

/** Base64 whose characters need no escaping in a URL. */
export const toUrlSafe = (base64: string): string =>
  base64.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");

export function fromUrlSafe(text: string): string {
  const base64 = text.replaceAll("-", "+").replaceAll("_", "/");
  return base64 + "=".repeat((4 - (base64.length % 4)) % 4);
}

function readNumber(text: string | null | undefined): number | null {
  if (!text) return null;
  const value = Number(text);
  return Number.isFinite(value) ? value : null;
}
