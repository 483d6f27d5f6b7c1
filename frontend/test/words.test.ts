import { describe, expect, it } from "vitest";
import type { Trouble } from "../src/endpoint/api";
import type { SearchAnswer } from "../src/endpoint/contract";
import { rangeName } from "../src/words/filters";
import { labelName, stockName } from "../src/words/labels";
import { speakWith } from "../src/words/messages";
import german from "../src/words/messages/de.json";
import english from "../src/words/messages/en.json";
import { bandOf, kinship, likelihood, surenessOfMatch } from "../src/words/sureness";
import { titleOf } from "../src/words/title";
import { forVisitors, retryIn } from "../src/words/trouble";

/** An answer whose first match is as sure as the whole. */
const answer = (change: Partial<SearchAnswer>): SearchAnswer => ({
  matches: [{ confidence: change.confidence ?? 0.6, verdict: "similar" } as SearchAnswer["matches"][number]],
  confidence: 0.6,
  no_confident_match: false,
  mode: "fast",
  query: {},
  index: { generation: 1, model: "m", images: 9 },
  timing_ms: {},
  ...change,
});

describe("the band above the matches", () => {
  it.each([
    [0.95, false, "Very likely what you are looking for"],
    [0.8, false, "Very likely what you are looking for"],
    [0.79, false, "Perhaps one of these"],
    [0.2, false, "Perhaps one of these"],
    [0.19, false, "We may have it, but no match stands out"],
    [0.1, true, "We probably don't have it: these are the nearest"],
    [0.9, true, "We probably don't have it: these are the nearest"],
  ])("at %s (no confident match: %s) says %s", (confidence, no_confident_match, title) => {
    expect(bandOf(answer({ confidence, no_confident_match }), "picture").title).toBe(title);
  });

  it("is no surer than its first match", () => {
    const [first] = answer({ confidence: 0.4 }).matches;
    expect(bandOf(answer({ confidence: 0.9, matches: first ? [first] : [] }), "picture").title).toBe(
      "Perhaps one of these",
    );
  });

  it("says what would help wherever it is not sure", () => {
    for (const unsure of [answer({}), answer({ no_confident_match: true })]) {
      expect(bandOf(unsure, "picture").advice).toContain("A tighter photo of the thing alone");
    }
    expect(bandOf(answer({ confidence: 0.9 }), "picture").advice).not.toContain("photo");
  });

  it("is more cautious about items", () => {
    expect(bandOf(answer({ confidence: 0.85 }), "item").title).toBe("Perhaps more of its kind");
    expect(bandOf(answer({ confidence: 0.97 }), "item").title).toBe("Probably more of its kind");
  });

  it("tells why there is nothing to compare in other languages, too", () => {
    const flat = "This picture has only flat shapes or lettering in few colours: too little to compare.";
    const title = () => bandOf(answer({ query: { blank: flat } }), "picture").title;
    expect(title()).toBe(flat);
    speakWith("de", german);
    expect(title()).toBe(german["blank.flat"]);
    speakWith("en", english);
  });

  it("says of an empty picture that it is empty, however sure the numbers are", () => {
    const blank = "This picture is nearly blank: there is nothing in it to compare.";
    expect(bandOf(answer({ confidence: 0.99, query: { blank } }), "picture")).toMatchObject({ level: 0, title: blank });
  });
});

it("has a word for every probability, and stronger words for higher ones", () => {
  const words = [0, 0.2, 0.5, 0.8, 0.95].map(likelihood);
  expect(words).toEqual(["Unlikely", "Possibly", "Likely", "Very likely", "Almost certainly"]);
});

it("never calls a match of an item surer than the whole answer", () => {
  expect(kinship(0.6, answer({ confidence: 0.96 }))).toBe("");
  expect(kinship(0.95, answer({ confidence: 0.96 }))).toBe("Probably alike");
  expect(kinship(0.95, answer({ confidence: 0.82 }))).toBe("Perhaps alike");
  expect(kinship(0.95, answer({ confidence: 0.95, no_confident_match: true }))).toBe("");
});

it.each([
  ["picture", 0.82, {}, ["Very likely", "82%"]],
  ["item", 0.82, { confidence: 0.95 }, ["Perhaps alike", ""]],
  ["picture", 0.82, { no_confident_match: true }, ["", ""]],
  ["examples", 0.82, {}, ["", ""]],
] as const)("says of a match of a %s as sure as %s the same wherever it stands", (asked, sure, change, said) => {
  expect(surenessOfMatch(sure, answer(change), asked)).toEqual(said);
});

it("begins a label with a capital and leaves its other letters", () => {
  expect(["banana", "Granny Smith apple", "street_sign"].map(labelName)).toEqual([
    "Banana",
    "Granny Smith apple",
    "Street sign",
  ]);
});

it("says in the visitor's language whether a thing is to be had", () => {
  const said = () => ["out of stock", "out_of_stock", "https://schema.org/PreOrder", "On_request"].map(stockName);
  expect(said()).toEqual(["Out of stock", "Out of stock", "To pre-order", "On request"]);
  speakWith("de", german);
  expect(said()).toEqual(["Nicht vorrätig", "Nicht vorrätig", "Vorbestellbar", "On request"]);
  speakWith("en", english);
});

describe("a problem as visitors read it", () => {
  const problem = (change: Partial<Trouble>): Trouble => ({
    type: "urn:visor:fetch_refused",
    title: "Fetch refused",
    status: 422,
    detail: "",
    ...change,
  });

  it("names nothing that only the owner can change", () => {
    const remedy = "If this is a server that you trust, name it in VISOR_ALLOW_HOSTS as a.example";
    expect(forVisitors(problem({ remedy })).remedy).toBe("Save the picture, and choose the file instead");
    expect(forVisitors(problem({ remedy: "Link to a smaller version, or raise VISOR_FETCH_BYTES_MAX" })).remedy).toBe(
      "Link to a smaller version",
    );
    const other = { type: "about:blank", remedy: "Check the endpoint in config.json, or try again in a moment." };
    expect(forVisitors(problem(other)).remedy).toBe("Try again in a moment, or tell its owner");
  });

  it("has a plain title, and keeps what it does not know", () => {
    expect(forVisitors(problem({ type: "urn:visor:undecodable_image" })).title).toBe("This picture cannot be read");
    const quota = { type: "urn:visor:quota_reached", title: "Quota reached", remedy: "Come back on the first" };
    expect(forVisitors(problem(quota))).toMatchObject({ title: "Quota reached", remedy: "Come back on the first" });
  });

  it("is not to be tried again in a moment where its button says when", () => {
    const quota = { type: "urn:visor:quota_reached", status: 429, remedy: "Come back on the first" };
    speakWith("de", german);
    try {
      expect(forVisitors(problem(quota)).remedy).toBe("Versuchen Sie es gleich noch einmal.");
      expect(forVisitors(problem({ ...quota, retryAfterS: 9000 })).remedy).toBe("");
    } finally {
      speakWith("en", english);
    }
  });

  it("is not to be tried again in a moment where the question itself is refused", () => {
    const refused = { type: "urn:visor:bad_request", status: 400, remedy: "Declare it in visor.toml" };
    speakWith("de", german);
    try {
      expect(forVisitors(problem(refused)).remedy).toBe("Fragen Sie den Betreiber");
    } finally {
      speakWith("en", english);
    }
  });

  it.each([
    [20, "Try again in 20 s"],
    [3 * 3600, "Try again at 1:00 PM"],
    [15 * 3600, "Try again on Nov 2, 2026"],
    [30 * 86_400, "Try again on Dec 1, 2026"],
  ])("is tried again in %s seconds: %s", (seconds, text) => {
    const now = new Date(2026, 10, 1, 10).getTime();
    expect(retryIn(seconds, now).replaceAll(/\s/g, " ")).toBe(text);
  });
});

describe("the window's title", () => {
  it("is the page's own before a search", () => {
    expect(titleOf(null, "", "Shop", null)).toBe("Shop");
  });

  it("says what is shown", () => {
    const picture = { blob: null, src: null, name: "tiger.jpg", aspect: null };
    expect(titleOf({ kind: "upload", picture }, "", "Shop", null)).toBe("tiger.jpg – Shop");
    expect(titleOf({ kind: "upload", picture }, "", "Shop", bandOf(answer({}), "picture"))).toBe(
      "tiger.jpg: perhaps here – Shop",
    );
    expect(
      titleOf({ kind: "item", id: "a", item: null, picture: { ...picture, name: "Tiger" } }, "", "Shop", null),
    ).toBe("More like Tiger – Shop");
    expect(titleOf({ kind: "upload", picture }, "red", "Shop", bandOf(answer({}), "picture"))).toBe(
      "tiger.jpg, red: perhaps here – Shop",
    );
    expect(titleOf({ kind: "words", picture }, "red", "Shop", bandOf(answer({}), "words"))).toBe("red – Shop");
  });
});

it("writes the ends of a range with all of their decimals", () => {
  expect(rangeName("@weight", 0.001, 1.234)).toBe("0.001 to 1.234");
  expect(rangeName("@weight", 36.5, undefined)).toBe("from 36.5");
});
