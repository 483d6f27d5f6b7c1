import { batch } from "@preact/signals";
import { leave, recall, remember, step } from "./address/history";
import { countFilters, K_DEFAULT, type LinkState, type Options, readLink } from "./address/link";
import { Failure, type Trouble } from "./endpoint/api";
import type { Item, SearchAnswer, SearchRequest } from "./endpoint/contract";
import { boxesOf } from "./picture/mask";
import { isWebAddress, nameOfAddress, type Offered, type Picture, preparePicture } from "./picture/picture";
import { restoreScroll, showTop } from "./scroll";
import * as state from "./state";
import { DEFAULT_OPTIONS, type Edit, NO_EDIT, type Query } from "./state";
import { formatCount } from "./words/format";
import { bandOf } from "./words/sureness";

/** After a stroke or a moved edge, this long a pause means that it is meant. */
const PAUSE_MS = 350;

export const EXAMPLES = 8;

let running: AbortController | null = null;
let pause: ReturnType<typeof setTimeout> | undefined;
/** What was last looked at, and how the server names it. */
let seen: { picture: Picture; shown: string; handle: string } | null = null;
/** Whether the address bar stands on a step that waits for its answer. */
let stepped = false;

/** Searches for what somebody dropped, pasted, picked, photographed or typed. */
export async function searchOffered(offered: Offered): Promise<void> {
  if (!offered) {
    state.toast.value = { text: "There is no picture in that. Try a picture file, or the address of one." };
    return;
  }
  if ("url" in offered) return searchUrl(offered.url);
  stop();
  const controller = new AbortController();
  running = controller;
  state.phase.value = "preparing";
  const picture = await preparePicture(offered.file, offered.name);
  if (running === controller) await start({ kind: "upload", picture });
}

export async function searchUrl(address: string): Promise<void> {
  const url = address.trim();
  if (!isWebAddress(url)) return searchOffered(null);
  await start({ kind: "url", url, picture: { blob: null, src: url, name: nameOfAddress(url), aspect: null } });
}

/** 'More like this': the filters stay, the picture changes. */
export async function searchItem(item: Item): Promise<void> {
  await start({ kind: "item", id: item.id, item, picture: pictureOf(item) });
}

/** Searches anew with other filters, another way, or for more. */
export async function changeOptions(change: Partial<Options>): Promise<void> {
  state.options.value = { ...state.options.value, k: K_DEFAULT, ...change };
  if (!state.query.value) return;
  // Fewer results begin where they can be seen, also for those who ticked far down beside them.
  if (change.filters) showTop(document.getElementById("results"));
  await run("push");
}

/** Takes a change of the box or of the paint, and searches when the hand rests. */
export function changeEdit(change: Partial<Edit>): void {
  state.edit.value = { ...state.edit.value, ...change };
  clearTimeout(pause);
  pause = setTimeout(() => void run("replace"), PAUSE_MS);
}

export const retry = (): Promise<void> => run("replace");

/** Back to the empty page. */
export function startOver(): void {
  stepped = false;
  leave();
  clear();
}

/** Shows what the address bar asks for: a page of this tab, a link from elsewhere, or the start. */
export async function follow(): Promise<void> {
  stepped = false;
  const visit = recall();
  if (visit) {
    stop();
    batch(() => {
      state.query.value = visit.query;
      state.edit.value = visit.edit;
      state.options.value = visit.options;
      state.linkNotice.value = null;
      showAnswer(visit.answer);
    });
    restoreScroll(visit.scroll);
    return;
  }
  const link = readLink(location.hash);
  if (!link) {
    clear();
    return restoreScroll(0);
  }
  const { query, generation, model, ...options } = link;
  const known = state.stats.value;
  batch(() => {
    reset(linkedQuery(link));
    state.options.value = options;
  });
  if ("vector" in query && known && model && model !== known.model.fingerprint) return fail(OTHER_MODEL);
  await Promise.all([run("replace"), "item" in query ? showItem(query.item) : null]);
  const now = state.answer.value?.index.generation;
  if (generation !== null && now !== undefined && now !== generation) {
    state.linkNotice.value = "The catalogue has changed since this link was made, so the results may differ.";
  }
}

/** Asks the endpoint what it holds. Until it answers, the page says so and offers to try again. */
export async function connect(): Promise<void> {
  const api = state.api.value;
  state.offline.value = null;
  try {
    await refreshStats();
  } catch (error) {
    state.offline.value = problemOf(error);
    return;
  }
  // Without these the page lacks filters and examples, and works.
  const ignore = () => undefined;
  void api.facets({}).then((found) => (state.facets.value = found), ignore);
  void api.examples(EXAMPLES).then(
    ({ items }) => (state.examples.value = items),
    () => (state.examples.value = []),
  );
}

/** What the index holds and how the server does, as of now. */
export async function refreshStats(): Promise<void> {
  state.stats.value = await state.api.value.stats();
}

/** The first page: the start, or what the address bar asks for. */
export async function begin(): Promise<void> {
  const link = readLink(location.hash);
  const linked = link && linkedQuery(link);
  if (linked) {
    batch(() => {
      reset(linked);
      state.phase.value = "preparing";
    });
  }
  // A link's model is compared with the endpoint's, so the endpoint is asked first.
  await connect();
  if (linked && state.query.value === linked) await follow();
}

/** The request for what is on the page, without its picture's bytes. */
export function requestNow(): { request: SearchRequest; picture: Blob | null } {
  const query = state.query.value;
  const { filters, mode, metric, k } = state.options.value;
  const request: SearchRequest = { k, mode, ...(countFilters(filters) > 0 && { filters, facets: true }) };
  if (metric) request.metric = metric;
  if (query?.kind === "url") request.url = query.url;
  if (query?.kind === "item") request.item = query.id;
  if (query?.kind === "vector") request.vector = query.vector;
  if (query?.kind === "upload" || query?.kind === "url") {
    const { box, mask } = state.edit.value;
    const exclude = boxesOf(mask);
    if (box) request.box = box;
    if (exclude.length > 0) request.exclude = exclude;
  }
  return { request, picture: query?.kind === "upload" ? query.picture.blob : null };
}

async function start(query: Query): Promise<void> {
  batch(() => {
    reset(query);
    state.options.value = { ...state.options.value, k: K_DEFAULT };
  });
  const answered = run("push");
  // 'More like this' is asked from far down a page, and its answer begins at the top.
  scrollTo(0, 0);
  await answered;
}

async function run(how: "push" | "replace"): Promise<void> {
  const query = state.query.value;
  if (!query) return;
  stop();
  const controller = new AbortController();
  running = controller;
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
    if (running !== controller) return;
    batch(() => showAnswer(answer));
    remember({ query: state.query.value ?? query, edit, options, answer, scroll: scrollY });
    stepped = false;
  } catch (error) {
    if (running === controller) fail(problemOf(error));
  }
}

/** The server remembers for some minutes what it saw in a picture, so another filter does not send it again. */
async function ask(query: Query, request: SearchRequest, picture: Blob | null, signal: AbortSignal) {
  const shown = JSON.stringify([request.box, request.exclude]);
  if (seen && seen.picture === query.picture && seen.shown === shown) {
    const again = { ...request, handle: seen.handle };
    delete again.url;
    try {
      return await state.api.value.search(again, null, signal);
    } catch (error) {
      if (!(error instanceof Failure && error.problem.type === UNKNOWN_HANDLE)) throw error;
    }
  }
  const answer = await state.api.value.search({ ...request, remember: true }, picture, signal);
  const { handle } = answer.query;
  seen = handle ? { picture: query.picture, shown, handle } : null;
  return answer;
}

function showAnswer(answer: SearchAnswer): void {
  state.answer.value = answer;
  state.phase.value = "done";
  state.problem.value = null;
  state.announcement.value = spoken(answer);
}

/** The answer for those who hear the page: how many, and how sure. */
function spoken(answer: SearchAnswer): string {
  if (answer.safety?.unsafe) return "This picture is held back.";
  const count = answer.matches.length;
  if (count === 0) return answer.query.blank ?? "No matches.";
  const band = bandOf(answer, state.askedAs.value);
  return `${formatCount(count)} ${count === 1 ? "match" : "matches"}. ${band.title.replace(/[.]?$/, ".")}`;
}

function fail(problem: Trouble): void {
  batch(() => {
    state.phase.value = "failed";
    state.problem.value = problem;
    state.announcement.value = problem.title;
  });
}

function reset(query: Query | null): void {
  state.query.value = query;
  state.edit.value = NO_EDIT;
  state.answer.value = null;
  state.problem.value = null;
  state.linkNotice.value = null;
}

function clear(): void {
  stop();
  batch(() => {
    reset(null);
    state.options.value = DEFAULT_OPTIONS;
    state.phase.value = "idle";
    state.announcement.value = "";
  });
}

function stop(): void {
  clearTimeout(pause);
  running?.abort();
  running = null;
}

/** A link names an item only by its id; its picture and title come beside the results. */
async function showItem(id: string): Promise<void> {
  try {
    const { item } = await state.api.value.item(id);
    const query = state.query.value;
    if (query?.kind === "item" && query.id === id) state.query.value = { ...query, item, picture: pictureOf(item) };
  } catch {
    // The search itself tells what is wrong with the item.
  }
}

const linkedQuery = ({ query }: LinkState): Query =>
  "item" in query
    ? { kind: "item", id: query.item, item: null, picture: NO_PICTURE }
    : { kind: "vector", vector: query.vector, picture: { ...NO_PICTURE, name: "Picture from a link" } };

const NO_PICTURE: Picture = { blob: null, src: null, name: "", aspect: null };

const pictureOf = (item: Item): Picture => ({
  blob: null,
  src: state.pictureAddress(item.image_url),
  name: item.title || "Untitled item",
  aspect: null,
});

function problemOf(error: unknown): Trouble {
  if (error instanceof Failure) return error.problem;
  return {
    type: "about:blank",
    title: "This page made a mistake",
    status: 0,
    detail: String(error),
    found: String(error),
    remedy: "Load the page again. If it stays, tell the owner.",
  };
}

const UNKNOWN_HANDLE = "urn:visor:unknown_handle";

const OTHER_MODEL: Trouble = {
  type: "urn:visor:other_model",
  title: "This link was made with another model",
  status: 0,
  detail: "",
  found: "The catalogue has been indexed with a new model since, and the two cannot be compared.",
  remedy: "Search with the picture itself again.",
};
