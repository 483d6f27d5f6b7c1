import type { Query } from "../state";
import { t } from "./messages";
import type { Band } from "./sureness";

/** The window's title: what is shown, then whose page it is. `band`: how sure the answer is, null before there is one. */
export function titleOf(query: Query | null, words: string, page: string, band: Band | null): string {
  if (!query) return page;
  if (query.kind === "words") return [words, page].filter(Boolean).join(" – ");
  const name = query.picture.name || t("item.this");
  const subject = query.kind === "item" ? t("page.title.more", { name }) : name;
  const found = query.kind === "item" ? undefined : band?.short;
  return `${[[subject, words].filter(Boolean).join(", "), found].filter(Boolean).join(": ")} – ${page}`;
}
