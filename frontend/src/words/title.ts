import type { Query } from "../state";
import type { Band } from "./sureness";

/** The window's title: what is shown, then whose page it is. `band`: how sure the answer is, null before there is one. */
export function titleOf(query: Query | null, page: string, band: Band | null): string {
  if (!query) return page;
  const name = query.picture.name || "this item";
  const shown = query.kind === "item" ? `More like ${name}` : [name, band?.short].filter(Boolean).join(": ");
  return `${shown} – ${page}`;
}
