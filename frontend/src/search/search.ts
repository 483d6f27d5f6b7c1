/** What can be searched for, and how a search is changed. */
import { batch } from "@preact/signals";
import { leave, remember } from "../address/history";
import { asksWithoutPicture, DEFAULT_OPTIONS, K_DEFAULT, K_MAX, type Options } from "../address/link";
import { expectPicture, permit } from "../device/switch";
import type { Item } from "../endpoint/contract";
import { isWebAddress, nameOfAddress, type Offered, preparePicture } from "../picture/picture";
import { showTop } from "../scroll";
import type { Edit, Query } from "../state";
import * as state from "../state";
import { t } from "../words/messages";
import { ask, requestNow } from "./ask";
import { clear, pictureOfItem, showAnswer, WORDS } from "./page";
import { problemOf } from "./problems";
import { run, standStill, start } from "./run";
import { afterPause, hasTurn, stop, takeTurn } from "./turn";

/** After a stroke or a moved edge, this long a pause means that it is meant. */
const PAUSE_MS = 350;
/** So many more at once. */
const K_STEP = 24;

/** Searches for what somebody dropped, pasted, picked, photographed or typed. */
export async function searchOffered(offered: Offered): Promise<void> {
  if (!offered) {
    state.toast.value = { text: t("ask.nothing") };
    return;
  }
  if ("url" in offered) return searchUrl(offered.url);
  const before = standing();
  const controller = takeTurn();
  state.phase.value = "preparing";
  expectPicture();
  const picture = await preparePicture(offered.file, offered.name).catch(() => null);
  if (!hasTurn(controller)) return;
  const { count = 1 } = offered;
  if (picture && count > 1) state.toast.value = { text: t("ask.first", { count }) };
  if (picture) return start({ kind: "upload", picture });
  state.toast.value = { text: t("ask.nothing") };
  await resume(before);
}

/** What is on the page before a picture is prepared. */
export const standing = () => ({ phase: state.phase.value, options: state.options.value });

/** Returns to it if nothing comes of the picture; sends a question that waits for its answer, or was changed, again. */
export async function resume({ phase, options }: ReturnType<typeof standing>): Promise<void> {
  const wasBusy = phase === "preparing" || phase === "searching";
  state.phase.value = wasBusy ? "idle" : phase;
  if (state.options.value !== options) await searchWith({});
  else if (wasBusy && state.query.value) await run("replace");
}

export async function searchUrl(address: string): Promise<void> {
  const url = address.trim();
  if (!isWebAddress(url)) return searchOffered(null);
  await start({ kind: "url", url, picture: { blob: null, src: url, name: nameOfAddress(url), aspect: null } });
}

/** 'More like this': the filters stay, the picture changes, and words and examples go with the question before. */
export async function searchItem(item: Item): Promise<void> {
  const query: Query = { kind: "item", id: item.id, item, picture: pictureOfItem(item) };
  await start(query, { text: "", examples: [], sort: "likeness" });
}

/** Searches for words: beside the picture that is on the page, or alone. */
export const searchWords = (text: string): Promise<void> => changeOptions({ text });

/** What a collection holds, before anything is asked for. */
export const browse = (collection: string): Promise<void> =>
  start(WORDS, { ...DEFAULT_OPTIONS, filters: { collection: [collection] } });

/** Searches anew with other filters, words, examples or order, another way, or for more. */
export async function changeOptions(change: Partial<Options>): Promise<void> {
  // A picture that is being prepared is searched for with them.
  if (state.phase.value === "preparing") state.options.value = { ...state.options.value, ...change };
  else await searchWith(change);
}

/** The same, even while a picture is being prepared. */
export async function searchWith(change: Partial<Options>): Promise<void> {
  const options = { ...state.options.value, k: K_DEFAULT, ...change };
  const query = state.query.value;
  if (query?.kind === "words" && !asksWithoutPicture(options)) return startOver();
  state.options.value = options;
  if (!query) return asksWithoutPicture(options) ? start(WORDS) : undefined;
  // Other results begin where they can be seen, also for those who ticked far down beside them.
  showTop(document.getElementById("results"));
  await run("push");
}

/** The words and the examples stay, the picture goes. */
export async function dropPicture(): Promise<void> {
  if (asksWithoutPicture(state.options.value)) await start(WORDS);
  else startOver();
}

/** The matches behind those that are shown. */
export async function showMore(): Promise<void> {
  const [shown, query] = [state.answer.value, state.query.value];
  if (!shown?.next || !query) return;
  const controller = takeTurn();
  const edit = state.edit.value;
  batch(() => {
    state.phase.value = "searching";
    state.problem.value = null;
  });
  try {
    const { request, picture } = requestNow();
    const behind = { ...request, k: K_STEP, after: shown.next, facets: false };
    const more = await ask(query, behind, picture, controller.signal);
    if (!hasTurn(controller)) return;
    const known = new Set(shown.matches.map(({ item }) => item.id));
    const fresh = more.matches.filter(({ item }) => !known.has(item.id));
    const matches = [...shown.matches, ...fresh];
    const answer = { ...shown, matches, next: more.next ?? null };
    const options = { ...state.options.value, k: Math.min(matches.length, K_MAX) };
    batch(() => {
      state.options.value = options;
      showAnswer(answer);
      state.announce(t("results.more.said", { count: fresh.length }));
    });
    remember({ query, edit, options, answer, scroll: scrollY });
  } catch (error) {
    if (!hasTurn(controller)) return;
    // What is shown still answers the question.
    batch(() => {
      state.phase.value = "done";
      state.problem.value = problemOf(error);
    });
  }
}

/** Takes a change of the box or of the paint, and searches when the hand rests. */
export function changeEdit(change: Partial<Edit>): void {
  state.edit.value = { ...state.edit.value, ...change };
  const query = state.query.value;
  if (query?.kind === "upload" || query?.kind === "url") state.query.value = { ...query, vector: null };
  // What runs is of no use any more, and until the hand rests nothing else may take this one's place.
  if (state.phase.value !== "preparing") {
    stop();
    state.phase.value = "searching";
  }
  afterPause(PAUSE_MS, () => void run("replace"));
}

/** Has the server look at the picture that is on the page. */
export async function sendPicture(): Promise<void> {
  if (state.query.value) permit(state.query.value.picture);
  await run("replace");
}

/** Back to the empty page. */
export function startOver(): void {
  standStill();
  leave();
  clear();
}
