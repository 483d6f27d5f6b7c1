/** From a question to its answer on the page, and in the history of the tab. */
import { batch } from "@preact/signals";
import { amend, linkOf, remember, step } from "../address/history";
import { K_DEFAULT, type Options } from "../address/link";
import type { SearchAnswer, SearchRequest } from "../endpoint/contract";
import { keepRecent } from "../recent";
import { keepFocus } from "../scroll";
import type { Query } from "../state";
import * as state from "../state";
import { bandOf } from "../words/sureness";
import { ask, partsOf, requestNow } from "./ask";
import { connect } from "./connect";
import { fail, reset, showAnswer } from "./page";
import { refusalOf } from "./problems";
import { hasTurn, takeTurn } from "./turn";

/** Whether the address bar shows a step that waits for its answer. */
let stepped = false;

/** The address bar shows a step that has its answer. */
export function standStill(): void {
  stepped = false;
}

export async function start(query: Query, change: Partial<Options> = {}): Promise<void> {
  batch(() => {
    reset(query);
    state.options.value = { ...state.options.value, k: K_DEFAULT, ...change };
  });
  const answered = run("push");
  // 'More like this' is clicked far down a page, and its answer begins at the top.
  scrollTo(0, 0);
  await answered;
}

/** Sends the question on the page; returns the answer that it shows, or null if there is none or a newer question came. */
export async function run(how: "push" | "replace"): Promise<SearchAnswer | null> {
  const query = state.query.value;
  if (!query) return null;
  const controller = takeTurn();
  const hadFocus = document.activeElement !== document.body;
  if (how === "push" && !stepped) {
    step();
    stepped = true;
  }
  const { request, picture } = requestNow();
  const [edit, options] = [state.edit.value, state.options.value];
  batch(() => {
    state.phase.value = "searching";
    state.problem.value = null;
  });
  try {
    const answer = await ask(query, request, picture, controller.signal);
    if (!hasTurn(controller)) return null;
    batch(() => {
      keepVector(request, answer);
      showAnswer(answer);
    });
    const visit = { query: state.query.value ?? query, edit, options, answer, scroll: scrollY };
    remember(visit);
    stepped = false;
    void keepRecent(visit, linkOf(visit));
    void lookForParts(answer);
    if (state.offline.value) void connect();
    return answer;
  } catch (error) {
    if (hasTurn(controller)) fail(refusalOf(error, request));
    return null;
  } finally {
    if (how === "push" && hadFocus && hasTurn(controller)) keepFocus();
  }
}

function keepVector(request: SearchRequest, { query: { vector } }: SearchAnswer): void {
  const query = state.query.value;
  if (request.examples || (query?.kind !== "upload" && query?.kind !== "url")) return;
  state.query.value = { ...query, vector: vector ?? null };
}

/**
 * If a whole picture had no confident match, asks once which parts of it one may want to search for: that costs as much
 * as several pictures, and is of no use after a match. The answer's matches are not read.
 */
async function lookForParts(answer: SearchAnswer): Promise<void> {
  const query = state.query.value;
  if ((query?.kind !== "upload" && query?.kind !== "url") || query.regions || state.isEdited.value) return;
  const { level } = bandOf(answer, "picture");
  if (answer.safety?.unsafe || level === 0 || level === 3) return;
  try {
    const regions = await partsOf(query.picture);
    const now = state.query.value;
    if (now?.picture !== query.picture || (now.kind !== "upload" && now.kind !== "url")) return;
    state.query.value = { ...now, regions };
    amend(state.query.value);
  } catch {
    // A courtesy: a box can still be drawn by hand.
  }
}
