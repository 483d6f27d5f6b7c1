import type { SearchAnswer } from "../endpoint/contract";

/** How sure an answer is, as a shopper would say it. */
export interface Band {
  /** How many of three marks are filled. */
  level: 0 | 1 | 2 | 3;
  title: string;
  /** The same in a word or three, after the picture's name. */
  short: string;
  /** What the matches are, and what would help. */
  advice: string;
}

type Asked = "picture" | "item";
interface Step extends Band {
  /** From this confidence of the answer on. */
  from: number;
}

const BETTER_PHOTO = "A tighter photo of the thing alone, on a plain ground in good light, often helps.";

/** From the surest down; the first whose confidence is reached counts. For items the words are more cautious. */
const STEPS: Readonly<Record<Asked, readonly Step[]>> = {
  picture: [
    {
      from: 0.8,
      level: 3,
      title: "Very likely what you are looking for",
      short: "very likely here",
      advice: "The nearest come first.",
    },
    {
      from: 0,
      level: 2,
      title: "Perhaps one of these",
      short: "perhaps here",
      advice: `The nearest come first. ${BETTER_PHOTO}`,
    },
  ],
  item: [
    {
      from: 0.9,
      level: 3,
      title: "Probably more of its kind",
      short: "probably here",
      advice: "The nearest come first.",
    },
    { from: 0, level: 2, title: "Perhaps more of its kind", short: "perhaps here", advice: "The nearest come first." },
  ],
};

/** What stands above matches that the endpoint calls unsure. */
const UNSURE: Readonly<Record<Asked, Band>> = {
  picture: {
    level: 1,
    title: "We probably don't have it: these are the nearest",
    short: "probably not here",
    advice: BETTER_PHOTO,
  },
  item: {
    level: 1,
    title: "Little is like it: these are the nearest",
    short: "little like it",
    advice: "Another picture of it may find more.",
  },
};

const SAME: Band = {
  level: 3,
  title: "The same picture is in the catalogue",
  short: "the same picture",
  advice: "It comes first.",
};

export const bandOf = (answer: SearchAnswer, asked: Asked): Band => {
  const { confidence, matches, no_confident_match: unsure, query } = answer;
  if (query.blank) return { level: 0, title: query.blank, short: "nothing to compare", advice: ADVICE_BLANK };
  if (unsure) return UNSURE[asked];
  if (asked === "picture" && matches[0]?.verdict === "exact") return SAME;
  const steps = STEPS[asked];
  // The catalogue may hold a photo's thing although no match is likely to be it.
  const surest = asked === "picture" ? (matches[0]?.confidence ?? 0) : confidence;
  return (steps.find(({ from }) => surest >= from) ?? steps.at(-1)) as Band;
};

/** What to do about a picture with nothing in it. */
export const ADVICE_BLANK = "Try a picture in which the thing can be seen.";

/** Words for one match of a picture, by the percentage that stands beside them. */
export function likelihood(exact: number): string {
  const probability = Math.round(exact * 100) / 100;
  if (probability >= 0.95) return "Almost certainly";
  if (probability >= 0.8) return "Very likely";
  if (probability >= 0.5) return "Likely";
  return probability >= 0.2 ? "Possibly" : "Unlikely";
}

/** Words for one match of an item: never surer than the whole answer, and none where it is not sure. */
export function kinship(match: number, answer: SearchAnswer): string {
  if (answer.no_confident_match) return "";
  const surest = Math.min(match, answer.confidence);
  if (surest >= 0.9) return "Probably alike";
  return surest >= 0.8 ? "Perhaps alike" : "";
}
