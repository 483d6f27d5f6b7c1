import { computed, signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import type english from "./messages/en.json";

/**
 * The page's texts, in the visitor's language. A language is one file in messages/: one text per key, with `{name}` where
 * a value goes, or one text for each of the language's plural forms (Intl.PluralRules) of `{count}`. A file that is added
 * is offered; each is loaded only when it is needed.
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
/** Locale of numbers, dates and names of countries: the page's language in the visitor's region, e.g. `de-AT`. */
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

/** The language that was requested last. */
let wished = "";

/** Loads a language's file, and uses it from now on, unless another is requested meanwhile. */
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

/** The language that the visitor chose, else the owner's, else the first of the browser's that is available. */
export async function speakBest(owners: string | undefined): Promise<void> {
  const known = [kept(), owners ?? "", ...navigator.languages, DEFAULT].filter(Boolean);
  const best = known.map(primary).find((one) => LANGUAGES.includes(one)) ?? DEFAULT;
  // A page in another language is better than none.
  await speak(best, whereSpoken(best, owners)).catch(() => speak(DEFAULT, whereSpoken(DEFAULT, owners)));
}

/** Uses a language that the visitor chose, also on the next visit. Fails if its file does not load. */
export async function chooseLanguage(chosen: string): Promise<void> {
  await speak(chosen, whereSpoken(chosen, undefined));
  if (language.value !== chosen) return;
  try {
    localStorage.setItem(KEPT, chosen);
  } catch {
    // Then the choice lasts as long as the page is open.
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
