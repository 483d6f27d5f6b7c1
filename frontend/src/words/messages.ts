import { computed, signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import type english from "./messages/en.json";

/**
 * What the page says, in the visitor's language. A language is one file beside this one: a text a key, with `{name}`
 * where a value goes, or one text for each of the language's plural forms (Intl.PluralRules) of `{count}`. A file that is
 * added is offered; each is loaded only where it is read.
 */
export type Key = keyof typeof english;
type Plural = Partial<Record<Intl.LDMLPluralRule, string>>;
export type Messages = Record<Key, string | Plural>;
type Values = Readonly<Record<string, string | number>>;

const FILES = import.meta.glob<{ default: Messages }>("./messages/*.json");
const fileOf = (language: string): string => `./messages/${language}.json`;
export const LANGUAGES: readonly string[] = Object.keys(FILES).map((path) => path.replace(/^.*\/|\.json$/g, ""));
const DEFAULT = "en";
const KEPT = "visor-language";

const messages = signal({} as Messages);
/** The language of the page's words. */
export const language = signal(DEFAULT);
/** Of numbers, dates and names of countries: the page's language as it is used where the visitor is, e.g. `de-AT`. */
export const locale = signal(DEFAULT);
const plural = computed(() => new Intl.PluralRules(language.value));

/** The text of a key, with its values in it; whole numbers as the language writes them. */
export const t = (key: Key, values: Values = {}): string => fill<string | number>(key, values).join("");

/** The same where values are elements, such as an emphasised name. */
export const rich = (key: Key, values: Readonly<Record<string, ComponentChildren>>): ComponentChildren[] =>
  fill(key, values);

function fill<Value>(key: Key, values: Readonly<Record<string, Value>>): (Value | string)[] {
  const found = messages.value[key];
  const count: unknown = values["count"];
  const text =
    typeof found === "object"
      ? (found[plural.value.select(typeof count === "number" ? count : 2)] ?? found.other)
      : found;
  return (text ?? key).split(/\{(\w+)\}/).map((part, index) => {
    if (index % 2 === 0) return part;
    const value = values[part];
    return typeof value === "number" ? new Intl.NumberFormat(locale.value).format(value) : (value ?? "");
  });
}

/** What was wished for last. */
let wished = "";

/** Reads a language's file, and speaks it from now on, unless another is wished for meanwhile. */
export async function speak(chosen: string, where: string = chosen): Promise<void> {
  const load = FILES[fileOf(chosen)];
  wished = chosen;
  const found = await load?.();
  if (found && wished === chosen) speakWith(chosen, found.default, where);
}

export function speakWith(chosen: string, found: Messages, where: string = chosen): void {
  messages.value = found;
  language.value = chosen;
  locale.value = where;
  if (typeof document === "undefined") return;
  document.documentElement.lang = chosen;
  document.documentElement.dir = String(found.direction);
}

/** The language that was chosen by hand, else the owner's, else the first of the browser's that there is. */
export async function speakBest(owners: string | undefined): Promise<void> {
  const known = [kept(), owners ?? "", ...navigator.languages, DEFAULT].filter(Boolean);
  const best = known.map(primary).find((one) => LANGUAGES.includes(one)) ?? DEFAULT;
  // A page in another language is better than none.
  await speak(best, whereSpoken(best, owners)).catch(() => speak(DEFAULT, whereSpoken(DEFAULT, owners)));
}

/** Speaks a language that somebody chose, also at the next visit. Fails where its file does not come. */
export async function chooseLanguage(chosen: string): Promise<void> {
  await speak(chosen, whereSpoken(chosen, undefined));
  if (language.value !== chosen) return;
  try {
    localStorage.setItem(KEPT, chosen);
  } catch {
    // The choice lasts as long as the page.
  }
}

const primary = (tag: string): string => tag.toLowerCase().split("-")[0] ?? "";

const whereSpoken = (chosen: string, owners: string | undefined): string =>
  [owners ?? "", ...navigator.languages].find((tag) => primary(tag) === chosen) ?? chosen;

function kept(): string {
  try {
    return localStorage.getItem(KEPT) ?? "";
  } catch {
    // Storage may be switched off: then the browser's language counts.
    return "";
  }
}

/** A language's own name for itself. */
export function nameOf(chosen: string): string {
  const name = new Intl.DisplayNames([chosen], { type: "language" }).of(chosen) ?? chosen;
  return name.charAt(0).toLocaleUpperCase(chosen) + name.slice(1);
}
