/** What the page shows of a question, its answer or its trouble. */
import { batch } from "@preact/signals";
import { DEFAULT_OPTIONS, type LinkState } from "../address/link";
import type { Trouble } from "../endpoint/api";
import type { Item, SearchAnswer } from "../endpoint/contract";
import { isRejected } from "../endpoint/feedback";
import type { Picture } from "../picture/picture";
import { pictureOfVector } from "../recent";
import * as state from "../state";
import { NO_EDIT, type Query } from "../state";
import { t } from "../words/messages";
import { bandOf } from "../words/sureness";
import { stop } from "./turn";

export function showAnswer(answer: SearchAnswer): void {
  state.answer.value = answer;
  state.phase.value = "done";
  state.problem.value = null;
  state.announce(spoken(answer));
  know(answer.matches.map(({ item }) => item));
}

/** The answer for those who hear the page: how many, and how sure. */
function spoken(answer: SearchAnswer): string {
  if (answer.safety?.unsafe) return t("unsafe.title");
  const band = bandOf(answer, state.askedAs.value);
  const count = answer.matches.filter(({ item }) => !isRejected(item.id)).length;
  if (count === 0) return answer.query.blank ? band.title : t("results.none");
  return `${t("results.matches", { count })} ${band.title.replace(/[.]?$/, ".")}`;
}

export function fail(problem: Trouble): void {
  batch(() => {
    state.phase.value = "failed";
    state.problem.value = problem;
    state.announce(problem.title);
  });
}

export function reset(query: Query | null): void {
  state.query.value = query;
  state.edit.value = NO_EDIT;
  state.answer.value = null;
  state.problem.value = null;
  state.linkNotice.value = null;
}

export function clear(): void {
  stop();
  batch(() => {
    reset(null);
    state.options.value = DEFAULT_OPTIONS;
    state.phase.value = "idle";
    state.announce("");
  });
}

export function know(items: readonly Item[]): void {
  state.seen.value = new Map([...state.seen.value, ...items.map((item) => [item.id, item] as const)]);
}

const NO_PICTURE: Picture = { blob: null, src: null, name: "", aspect: null };
export const WORDS: Query = { kind: "words", picture: NO_PICTURE };

export function linkedQuery({ query }: LinkState): Query {
  if (!query) return { ...WORDS };
  return "item" in query
    ? { kind: "item", id: query.item, item: null, picture: NO_PICTURE }
    : {
        kind: "vector",
        vector: query.vector,
        picture: { ...NO_PICTURE, name: t("picture.linked"), src: pictureOfVector(query.vector) },
      };
}

export const pictureOfItem = (item: Item): Picture => ({
  blob: null,
  src: state.pictureAddress(item.image_url),
  name: item.title || t("card.untitled"),
  aspect: null,
});
