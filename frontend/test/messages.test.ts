import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import ts from "typescript";
import { afterAll, describe, expect, it } from "vitest";
import { type Key, LANGUAGES, type Messages, nameOf, rich, speak, t } from "../src/words/messages";
import english from "../src/words/messages/en.json";

const SOURCES = join(import.meta.dirname, "../src");
const read = (language: string): Messages =>
  JSON.parse(readFileSync(join(SOURCES, `words/messages/${language}.json`), "utf8"));
const formsOf = (message: Messages[Key]): string[] =>
  typeof message === "string" ? [message] : Object.values(message);
const placesIn = (text: string): string[] => [...text.matchAll(/\{(\w+)\}/g)].map(([place]) => place).sort();

/** What is rightly the same in English and in another language. */
const SAME: Readonly<Record<string, readonly Key[]>> = {
  de: ["about.name"],
  fr: [
    "picture.photo",
    "filters.collection",
    "filters.source",
    "filters.date",
    "field.description",
    "about.segments",
    "about.licences",
  ],
  es: ["filters.no"],
};
/** Messages without words of their own. */
const WORDLESS: readonly Key[] = ["direction", "chips.is", "chips.words"];

const files = readdirSync(SOURCES, { recursive: true, encoding: "utf8" }).filter(
  (path) => /\.tsx?$/.test(path) && path !== "openapi.ts",
);
const sources = files.map((path) => {
  const text = readFileSync(join(SOURCES, path), "utf8");
  const kind = path.endsWith("x") ? ts.ScriptKind.TSX : ts.ScriptKind.TS;
  return { path, text, tree: ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true, kind) };
});

describe.each(LANGUAGES)("the messages in %s", (language) => {
  const found = read(language);

  it("have every key and no other", () => {
    expect(Object.keys(found).sort()).toEqual(Object.keys(english).sort());
  });

  it("have the values of the English ones, in each plural form that the language has", () => {
    const { pluralCategories } = new Intl.PluralRules(language).resolvedOptions();
    for (const key of Object.keys(english) as Key[]) {
      const [message, original] = [found[key], english[key] as Messages[Key]];
      expect([key, typeof message]).toEqual([key, typeof original]);
      if (typeof message === "object") {
        // `many` is for millions; without it they read as `other`.
        const needed = pluralCategories.filter((form) => form !== "many");
        expect(Object.keys(message), key).toEqual(expect.arrayContaining(needed));
      }
      const [places] = formsOf(original).map(placesIn);
      for (const text of formsOf(message)) {
        expect(text.trim(), key).not.toBe("");
        expect(placesIn(text), key).toEqual(places);
      }
    }
  });

  it("are translated", () => {
    if (language === "en") return;
    const same = (Object.keys(english) as Key[]).filter(
      (key) => JSON.stringify(found[key]) === JSON.stringify(english[key]) && !WORDLESS.includes(key),
    );
    expect(same).toEqual(SAME[language] ?? []);
  });
});

it.each([
  ["en", "The nearest: 1 of 1 picture"],
  ["de", "Das ähnlichste: 1 von 1 Bild"],
  ["fr", "La plus proche : 1 sur 1 image"],
  ["es", "La más cercana: 1 de 1 imagen"],
])("speaks of one picture in the singular, in %s", async (language, text) => {
  await speak(language);
  expect(t("results.nearest", { shown: 1, count: 1 })).toBe(text);
  await speak("en");
});

it("uses every message", () => {
  const code = sources.map(({ text }) => text).join("\n");
  // A key may be put together from a name: `order.${sort}`.
  const patterns = [...code.matchAll(/`([\w.]*)\$\{[\w.]+\}([\w.]*)`/g)].map(([, before = "", after = ""]) => [
    before,
    after,
  ]);
  const isUsed = (key: string) =>
    code.includes(`"${key}"`) ||
    patterns.some(
      ([before = "", after = ""]) =>
        before.includes(".") &&
        key.startsWith(before) &&
        key.endsWith(after) &&
        !key.slice(before.length, key.length - after.length).includes("."),
    );
  expect(Object.keys(english).filter((key) => key !== "direction" && !isUsed(key))).toEqual([]);
});

/** Names of keys, headers and the like, which look like words and are none of the page's. */
const NAMES =
  /^(Enter|Escape|Delete|Backspace|Shift|Arrow(Left|Right|Up|Down)|Files|Content-Type|Range|Retry-After|X-Visor-Key|GET|POST|NotAllowedError|NotFoundError|Visor|Ctrl V|⌘ V)$/;
const looksLikeText = (text: string): boolean =>
  /\p{L}/u.test(text) &&
  !NAMES.test(text) &&
  // A capital and small letters, or several words and a full stop.
  (/^\p{Lu}[\p{Ll}’']+([ ,.:;!?…]|$)/u.test(text.trim()) || /\p{L}{2,} \p{L}+[^=]*[.!?…]$/u.test(text.trim()));
const SPOKEN = new Set(["alt", "aria-label", "label", "placeholder", "text", "title", "caption"]);

/** Texts in a source that do not come from the messages. */
function textsIn(tree: ts.SourceFile): string[] {
  const found: string[] = [];
  const visit = (node: ts.Node) => {
    if (ts.isImportDeclaration(node) || ts.isTypeNode(node)) return;
    // What refuses a request in the server's place says it in the server's words.
    if (ts.isNewExpression(node) && node.expression.getText(tree) === "Refusal") return;
    if (ts.isJsxText(node) && /\p{L}/u.test(node.text)) found.push(node.text.trim());
    if (ts.isStringLiteralLike(node) || ts.isTemplateHead(node) || ts.isTemplateMiddleOrTemplateTail(node)) {
      const attribute = ts.isJsxAttribute(node.parent) ? node.parent.name.getText() : "";
      if (SPOKEN.has(attribute) ? /\p{L}/u.test(node.text) : attribute !== "class" && looksLikeText(node.text))
        found.push(node.text);
    }
    ts.forEachChild(node, visit);
  };
  visit(tree);
  return found;
}

it("says nothing that is not in the messages", () => {
  // What servers say with an answer is English, also where the device answers in their place.
  const servers = ["local/notices.ts", "device/image/content.ts"];
  // Its sentences name to the server why a picture is empty; the page says it in its own words.
  const spoken = sources.filter(({ path }) => !servers.includes(path));
  const found = spoken.flatMap(({ path, tree }) => textsIn(tree).map((text) => `${path}: ${text}`));
  expect(found).toEqual([]);
});

it.each([
  ["<p>Hello</p>", "Hello"],
  ["<p>{isBusy ? 'Wait' : <b />}</p>", "Wait"],
  ["<button aria-label='close' />", "close"],
  ["const said = `Box $" + "{width} wide`", "Box "],
  ["toast.value = { text: 'that is no picture.' }", "that is no picture."],
])("would find the text in %s", (code, text) => {
  expect(textsIn(ts.createSourceFile("a.tsx", code, ts.ScriptTarget.Latest, true, ts.ScriptKind.TSX))).toContain(text);
});

describe("a text", () => {
  afterAll(() => speak("en"));

  it.each([
    ["en", 1, "1 match."],
    ["en", 1234, "1,234 matches."],
    ["de", 1, "1 Treffer."],
    ["de", 1234, "1.234 Treffer."],
    ["fr", 0, "0 résultat."],
    ["es", 2, "2 resultados."],
    ["es", 2_000_000, "2.000.000 resultados."],
  ])("in %s follows the language's plural rules for %d", async (language, count, text) => {
    await speak(language);
    expect(t("results.matches", { count }).replaceAll(/[\u00a0\u202f]/g, " ")).toBe(text);
  });

  it("takes elements as values", async () => {
    await speak("en");
    const strong = { type: "strong" } as never;
    expect(rich("page.title.more", { name: strong })).toEqual(["More like ", strong, ""]);
  });
});

it("offers each language by its own name", () => {
  expect(LANGUAGES.map(nameOf).sort()).toEqual(["Deutsch", "English", "Español", "Français"]);
});
