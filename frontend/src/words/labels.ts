import { sentenceCase } from "./format";

/** Below it, what a picture seems to show is not said. */
export const LABEL_MIN = 0.5;

/**
 * A label as people say it: its first synonym, without what explains it. Some of ImageNet's are explanations
 * ('a cat having a striped coat'), for which there is no short name: "".
 */
export function shortLabel(name: string): string {
  const [first = ""] = name.replaceAll("_", " ").split(/[,(;]| \/ | for /);
  const short = first.trim();
  return /^(an?|the) | (of|with|having|used|that|which) (an?|the) (?!woods)/i.test(short) ? "" : sentenceCase(short);
}
