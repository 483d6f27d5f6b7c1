import { sentenceCase } from "./format";
import { type Key, t } from "./messages";

/** Below it, what a picture seems to show is not said. */
export const LABEL_MIN = 0.5;

/** A label as a line begins with it. The endpoint names labels shortly. */
export const labelName = (name: string): string => sentenceCase(name.replaceAll("_", " "));

/** What schema.org and product feeds call it. */
const STOCK: ReadonlyMap<string, Key> = new Map([
  ["outofstock", "stock.out"],
  ["soldout", "stock.out"],
  ["preorder", "stock.before"],
  ["presale", "stock.before"],
  ["backorder", "stock.later"],
  ["discontinued", "stock.never"],
  ["limitedavailability", "stock.few"],
  ["instoreonly", "stock.shops"],
  ["onlineonly", "stock.online"],
  ["madetoorder", "stock.order"],
  ["reserved", "stock.reserved"],
]);

/** Whether a thing is to be had, in words: `out_of_stock`, `https://schema.org/PreOrder`; what a source wrote otherwise. */
export function stockName(availability: string): string {
  const name = availability.split("/").pop() ?? "";
  const key = STOCK.get(name.replace(/[ _-]/g, "").toLowerCase());
  return key ? t(key) : sentenceCase(name);
}
