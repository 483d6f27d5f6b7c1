import { sentenceCase } from "./format";

/** Below it, what a picture seems to show is not said. */
export const LABEL_MIN = 0.5;

/** A label as a line begins with it. The endpoint names labels shortly. */
export const labelName = (name: string): string => sentenceCase(name.replaceAll("_", " "));
