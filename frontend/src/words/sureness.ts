import type { SearchAnswer } from "../endpoint/contract";
import { formatPercent } from "./format";
import { type Key, language, t } from "./messages";

/** How sure an answer is, as a shopper would say it. */
export interface Band {
  /** How many of three marks are filled; null if they do not apply. */
  level: 0 | 1 | 2 | 3 | null;
  title: string;
  /** The same in a word or three, after the picture's name. */
  short: string;
  /** What the matches are, and what would help. */
  advice: string;
}

/** What was searched with: a picture, an item of the catalogue, words alone, items that the visitor chose, or filters. */
export type Asked = "picture" | "item" | "words" | "examples" | "browse";

const band = (level: Band["level"], title: Key, short: Key, advice: Key): Band => ({
  level,
  title: t(title),
  short: t(short),
  advice: t(advice),
});

interface Step {
  /** From this confidence of the answer on. */
  from: number;
  band: () => Band;
}

/** Confidence below which a match is called unlikely. */
const UNLIKELY = 0.2;

/** From the surest down; the first whose confidence is reached applies. For items the words are more cautious. */
const STEPS: Readonly<Record<"picture" | "item", readonly Step[]>> = {
  picture: [
    { from: 0.8, band: () => band(3, "band.likely", "band.likely.short", "band.nearest") },
    { from: UNLIKELY, band: () => band(2, "band.perhaps", "band.perhaps.short", "band.nearest.photo") },
    { from: 0, band: () => band(1, "band.faint", "band.faint.short", "band.photo") },
  ],
  item: [
    { from: 0.9, band: () => band(3, "band.item.likely", "band.item.likely.short", "band.nearest") },
    { from: 0, band: () => band(2, "band.item.perhaps", "band.perhaps.short", "band.nearest") },
  ],
};

/** The text above matches that the endpoint calls unsure. */
const unsure = (asked: Asked): Band =>
  asked === "picture"
    ? band(1, "band.unsure", "band.unsure.short", "band.photo")
    : band(1, "band.item.unsure", "band.item.unsure.short", "band.item.photo");

/** The text above the matches of an answer. `sorted`: they are in another order than likeness. */
export function bandOf(answer: SearchAnswer, asked: Asked, sorted = false): Band {
  const found = surenessOf(answer, asked);
  if (!sorted || found.level === 0) return found;
  const isNear = asked !== "words" && asked !== "browse" && (answer.total ?? 0) > 1;
  return { ...found, advice: isNear ? t("band.sorted.nearest", { count: answer.total ?? 0 }) : t("band.sorted") };
}

function surenessOf(answer: SearchAnswer, asked: Asked): Band {
  const { confidence, matches, no_confident_match: isUnsure, query } = answer;
  if (query.blank) {
    const short = t("band.blank.short");
    return { level: 0, title: blankSentence(query.blank), short, advice: t("blank.advice") };
  }
  if (asked === "words")
    return band(null, isUnsure ? "band.words.unsure" : "band.words", "band.words.short", "band.words.advice");
  if (asked === "browse") return band(null, "band.browse", "band.words.short", "band.browse.advice");
  if (asked === "examples") return band(null, "band.like", "band.words.short", "band.nearest");
  if (isUnsure) return unsure(asked);
  if (asked === "picture" && matches.some(({ verdict }) => verdict === "exact"))
    return band(3, "band.same", "band.same.short", "band.same.advice");
  const steps = STEPS[asked];
  // The catalogue may hold what a photo shows although no match is likely to be it.
  const surest = asked === "picture" ? Math.max(...matches.map((match) => match.confidence), 0) : confidence;
  return (steps.find(({ from }) => surest >= from) ?? (steps.at(-1) as Step)).band();
}

/** Why there is nothing to compare in a picture. Servers report it in English. */
export function blankSentence(told: string): string {
  if (language.value === "en") return told;
  const known = [
    [/noise/, "blank.noise"],
    [/missing/, "blank.cut"],
    [/flat/, "blank.flat"],
  ] as const;
  return t(known.find(([word]) => word.test(told))?.[1] ?? "blank.nothing");
}

/** Words for one match of a picture, by the percentage next to them. */
export function likelihood(exact: number): string {
  const probability = Math.round(exact * 100) / 100;
  if (probability >= 0.95) return t("sure.certain");
  if (probability >= 0.8) return t("sure.very");
  if (probability >= 0.5) return t("sure.likely");
  return t(probability >= UNLIKELY ? "sure.possible" : "sure.unlikely");
}

/** Words for one match of an item: never surer than the whole answer, and none where it is not sure. */
export function kinship(match: number, answer: SearchAnswer): string {
  if (answer.no_confident_match) return "";
  const surest = Math.min(match, answer.confidence);
  if (surest >= 0.9) return t("sure.alike");
  return surest >= 0.8 ? t("sure.alike.perhaps") : "";
}

/** What is shown for one match: words, empty if they would mislead, and the percentage for a photo's match. */
export function surenessOfMatch(
  confidence: number,
  answer: SearchAnswer | null,
  asked: Asked,
): [words: string, percent: string] {
  if (!answer) return ["", ""];
  // If the answer as a whole is unsure, its band says so once for all.
  if (asked === "picture" && !answer.no_confident_match && !answer.query.blank)
    return [likelihood(confidence), formatPercent(confidence)];
  return [asked === "item" ? kinship(confidence, answer) : "", ""];
}
