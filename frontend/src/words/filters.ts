import type { Filters } from "../endpoint/contract";
import { type FilterPart, partsOf } from "../filters";
import { formatCountry, formatDay, formatNumber, formatPrice, sentenceCase } from "./format";
import { labelName } from "./labels";
import { type Key, t } from "./messages";

const FIELDS: ReadonlyMap<string, Key> = new Map([
  ["collection", "filters.collection"],
  ["country", "filters.country"],
  ["currency", "filters.currency"],
  ["label", "filters.label"],
  ["source", "filters.source"],
  ["price", "filters.price"],
  ["date", "filters.date"],
]);

/** The name of a list, a range or an attribute (`@colour`). */
export function fieldName(field: string): string {
  const name = field.replace(/^@/, "");
  const key = FIELDS.get(name);
  return key ? t(key) : sentenceCase(name);
}

/** A value of a field as people read it. */
export function valueName(of: string, value: string): string {
  const field = of.replace(/^@/, "");
  if (field === "country") return formatCountry(value);
  if (field === "label") return labelName(value);
  if (field === "collection") return sentenceCase(value);
  if (value === "true") return t("filters.yes");
  return value === "false" ? t("filters.no") : value;
}

function boundName(field: string, value: number | string): string {
  if (typeof value === "string") return formatDay(value);
  return field === "price" ? formatPrice(value, null) : formatNumber(value);
}

/** Two ends, of which one may be open, in words. */
export function rangeName(field: string, low: number | string | undefined, high: number | string | undefined): string {
  const [from, to] = [low, high].map((one) => (one === undefined ? "" : boundName(field, one)));
  if (from && from === to) return from;
  if (from && to) return t("chips.between", { low: from, high: to });
  return from ? t("chips.from", { low: from }) : t("chips.to", { high: to ?? "" });
}

/** A filter in words, e.g. `Colour: red`. */
export function partName({ field, is, not, low, high, missing }: FilterPart): string {
  const name = fieldName(field);
  if (is !== undefined) return t("chips.is", { name, value: valueName(field, is) });
  if (not !== undefined) return t("chips.isNot", { name, value: valueName(field, not) });
  if (missing !== undefined) return t(missing ? "chips.missing" : "chips.present", { name });
  return t("chips.is", { name, value: rangeName(field, low, high) });
}

export const nameOfFilters = (filters: Filters): string =>
  partsOf(filters)
    .map(({ field, is, ...rest }) => (is === undefined ? partName({ field, ...rest }) : valueName(field, is)))
    .join(", ");
