import { batch } from "@preact/signals";
import { amend, leave, linkOf, recall, remember, step } from "./address/history";
import {
  asksWithoutPicture,
  DEFAULT_OPTIONS,
  EXAMPLES_MAX,
  type Example,
  idOf,
  K_DEFAULT,
  K_MAX,
  LIKE,
  type LinkState,
  type Options,
  readLink,
} from "./address/link";
import { DeviceTrouble } from "./device/device";
import { described, isAlone, isOn, lookAt, meetModel, permit, regionsIn, staysHere } from "./device/switch";
import { Failure, type Trouble } from "./endpoint/api";
import type {
  Box,
  Picture as ComparedPicture,
  Item,
  Region,
  Example as RequestExample,
  SearchAnswer,
  SearchRequest,
} from "./endpoint/contract";
import { countFilters } from "./filters";
import { boxesOf } from "./picture/mask";
import { isWebAddress, nameOfAddress, type Offered, type Picture, preparePicture, toBase64 } from "./picture/picture";
import { keepRecent, pictureOfVector } from "./recent";
import { restoreScroll, showTop } from "./scroll";
import * as state from "./state";
import { type Edit, NO_EDIT, type Query } from "./state";
import { t } from "./words/messages";
import { bandOf } from "./words/sureness";

/** After a stroke or a moved edge, this long a pause means that it is meant. */
const PAUSE_MS = 350;
/** So many more at once. */
const K_STEP = 24;

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
    state.toast.value = { text: t("ask.nothing") };
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

/** 'More like this': the filters stay, the picture changes, and words and examples go with the question before. */
export async function searchItem(item: Item): Promise<void> {
  const query: Query = { kind: "item", id: item.id, item, picture: pictureOfItem(item) };
  await start(query, { text: "", examples: [], sort: "likeness" });
}

/** Searches for words: beside the picture that is on the page, or alone. */
export async function searchWords(text: string): Promise<void> {
  if (state.query.value) await changeOptions({ text });
  else if (text) await start(WORDS, { text });
}

/** What a collection holds, before anything is asked for. */
export const browse = (collection: string): Promise<void> =>
  start(WORDS, { ...DEFAULT_OPTIONS, filters: { collection: [collection] } });

/** Asks for what is like an item as well, or not like it; once more takes it back. */
export async function toggleExample(item: Item, weight: number): Promise<void> {
  const isSet = state.options.value.examples.some((one) => idOf(one) === item.id && one.weight === weight);
  know([item]);
  await changeOptions({ examples: withExample({ item: item.id, weight }, !isSet) });
}

/** Asks for what is like a picture of the visitor's own as well, or not like it. */
export async function addPicture(file: File, weight: number): Promise<void> {
  stop();
  const controller = new AbortController();
  running = controller;
  state.phase.value = "preparing";
  try {
    const picture = await preparePicture(file, file.name);
    // What is seen in it is asked for first: a link and the searches after this one then name it by that.
    const kept = seen;
    const found = await ask({ kind: "upload", picture }, { k: 1 }, picture.blob, controller.signal);
    seen = kept;
    if (running !== controller) return;
    const { vector, handle = null } = found.query;
    if (!vector || found.safety?.unsafe) {
      state.toast.value = { text: t(found.safety?.unsafe ? "unsafe.title" : "ask.add.failed") };
      state.phase.value = state.answer.value ? "done" : "idle";
      return;
    }
    state.added.value = new Map(state.added.value).set(vector, { picture, handle });
    await changeOptions({ examples: withExample({ vector, weight }, true) });
  } catch (error) {
    if (running === controller) fail(problemOf(error));
  }
}

function withExample(example: Example, isWanted: boolean): Example[] {
  const others = state.options.value.examples.filter((one) => idOf(one) !== idOf(example));
  return isWanted ? [...others, example].slice(-EXAMPLES_MAX) : others;
}

/** Searches anew with other filters, words, examples or order, another way, or for more. */
export async function changeOptions(change: Partial<Options>): Promise<void> {
  const options = { ...state.options.value, k: K_DEFAULT, ...change };
  const query = state.query.value;
  if (query?.kind === "words" && !asksWithoutPicture(options)) return startOver();
  state.options.value = options;
  if (!query) return;
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
  stop();
  const controller = new AbortController();
  running = controller;
  const edit = state.edit.value;
  state.phase.value = "searching";
  try {
    const { request, picture } = requestNow();
    const behind = { ...request, k: K_STEP, after: shown.next, facets: false };
    const more = await ask(query, behind, picture, controller.signal);
    if (running !== controller) return;
    const known = new Set(shown.matches.map(({ item }) => item.id));
    const fresh = more.matches.filter(({ item }) => !known.has(item.id));
    const matches = [...shown.matches, ...fresh];
    const answer = { ...shown, matches, next: more.next ?? null };
    const options = { ...state.options.value, k: Math.min(matches.length, K_MAX) };
    batch(() => {
      state.options.value = options;
      showAnswer(answer);
      state.announcement.value = t("results.more.said", { count: fresh.length });
    });
    remember({ query, edit, options, answer, scroll: scrollY });
  } catch (error) {
    if (running === controller) fail(problemOf(error));
  }
}

/** Takes a change of the box or of the paint, and searches when the hand rests. */
export function changeEdit(change: Partial<Edit>): void {
  state.edit.value = { ...state.edit.value, ...change };
  const query = state.query.value;
  if (query?.kind === "upload" || query?.kind === "url") state.query.value = { ...query, vector: null };
  clearTimeout(pause);
  pause = setTimeout(() => void run("replace"), PAUSE_MS);
}

export const retry = (): Promise<void> => run("replace");

/** Has the server look at the picture that is on the page. */
export function sendPicture(): Promise<void> {
  if (state.query.value) permit(state.query.value.picture);
  return retry();
}

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
  const hasVector = [query, ...options.examples].some((one) => one && "vector" in one);
  if (hasVector && known && model && model !== known.model.fingerprint) return fail(otherModel());
  const named = query && "item" in query ? showItem(query.item) : null;
  await Promise.all([run("replace"), named, ...options.examples.map(nameExample)]);
  const now = state.answer.value?.index.generation;
  if (generation !== null && now !== undefined && now !== generation) state.linkNotice.value = t("results.changed");
}

/** Asks the endpoint what it holds. Until it answers, the page says so and offers to try again. */
export async function connect(): Promise<void> {
  const api = state.api.value;
  state.offline.value = null;
  isAlone.value = state.isLocal.value;
  try {
    await refreshStats();
  } catch (error) {
    if (state.isLocal.value && state.config.value.hasServer) {
      state.isServed.value = true;
      state.toast.value = { text: t("local.served") };
      return connect();
    }
    state.offline.value = problemOf(error);
    return;
  }
  // Without these the page lacks filters and examples, and works.
  const ignore = () => undefined;
  void meet().catch(ignore);
  void api.facets({}).then((found) => (state.facets.value = found), ignore);
  void api.examples(EXAMPLES).then(
    ({ items }) => (state.examples.value = items),
    () => (state.examples.value = []),
  );
}

/** Learns what the index is searched with, and whether this device may look with it. */
async function meet(): Promise<void> {
  const found = await state.api.value.model();
  const { models } = state.config.value;
  await meetModel(found && { ...found, ...(models && { models }) });
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
  const { filters, mode, metric, k, text, examples, sort, variety, group } = state.options.value;
  const request: SearchRequest = { k, mode, ...(countFilters(filters) > 0 && { filters, facets: true }) };
  // A metric compares vectors; words have none.
  if (metric && !text) request.metric = metric;
  if (text) request.text = text;
  if (examples.length > 0) request.examples = [...examples];
  if (sort !== "likeness") request.sort = sort;
  if (variety > 0 && sort === "likeness") request.variety = variety;
  if (!group) request.group = false;
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

/** The picture that is on the page, as it is compared with another. */
export async function pictureNow(): Promise<ComparedPicture> {
  const query = state.query.value;
  const { box } = state.edit.value;
  const part = box ? { box } : {};
  if (query?.kind === "item") return { item: query.id };
  if (query?.kind === "url") return { url: query.url, ...part };
  const blob = query?.kind === "upload" ? query.picture.blob : null;
  return { image: blob ? await toBase64(blob) : "", ...part };
}

async function start(query: Query, change: Partial<Options> = {}): Promise<void> {
  batch(() => {
    reset(query);
    state.options.value = { ...state.options.value, k: K_DEFAULT, ...change };
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
    batch(() => {
      keepVector(request, answer);
      showAnswer(answer);
    });
    const visit = { query: state.query.value ?? query, edit, options, answer, scroll: scrollY };
    remember(visit);
    stepped = false;
    void keepRecent(visit, linkOf(visit));
    void lookForParts(answer);
  } catch (error) {
    if (running === controller) fail(problemOf(error));
  }
}

/**
 * The server remembers for some minutes what it saw in a picture, or what this device told of it, so another filter or a
 * page does not send it again.
 */
async function ask(query: Query, request: SearchRequest, picture: Blob | null, signal: AbortSignal) {
  const isHere = await isLookedAtHere(query.picture);
  const shown = JSON.stringify([request.box, request.exclude, isHere]);
  // What this device looks at is what is left of the picture.
  const { box, exclude, ...rest } = request;
  const asked = isHere ? rest : request;
  const send = async (more: SearchRequest) => {
    const looked = isHere ? { seen: await lookAt(query.picture, box ?? null, exclude ?? []) } : {};
    return state.api.value.search({ ...asked, ...looked, remember: true, ...more }, isHere ? null : picture, signal);
  };
  const sendAnew = (more: SearchRequest = {}) =>
    send(more).catch(async (error) => {
      if (!(isHere && error instanceof Failure && error.problem.type === OTHER_MODEL)) throw error;
      await meet();
      if (!staysHere(query.picture)) throw error;
      return send(more);
    });
  const examples = request.examples?.map(byHandle);
  const known: SearchRequest = examples ? { examples } : {};
  try {
    if (seen && seen.picture === query.picture && seen.shown === shown) {
      const again = { ...asked, ...known, handle: seen.handle };
      delete again.url;
      return await state.api.value.search(again, null, signal);
    }
    if (examples?.some((one) => one.handle)) return await sendAnew(known);
  } catch (error) {
    if (!(error instanceof Failure && error.problem.type === UNKNOWN_HANDLE)) throw error;
    state.added.value = new Map([...state.added.value].map(([vector, one]) => [vector, { ...one, handle: null }]));
  }
  const answer = await sendAnew();
  const { handle } = answer.query;
  // Of a picture and examples together it is no name of the picture.
  const isSent = (query.kind === "upload" || query.kind === "url") && !request.examples;
  seen = handle && isSent ? { picture: query.picture, shown, handle } : null;
  return answer;
}

/** Whoever wanted pictures to stay here before is not to have one sent while the page still learns of the model. */
async function isLookedAtHere(picture: Picture): Promise<boolean> {
  if ((isOn.value || isAlone.value) && described.value === undefined && picture.file) await meet();
  return staysHere(picture);
}

/** Of a picture that the server remembers it knows more than its vector. */
function byHandle(example: RequestExample): RequestExample {
  const handle = example.vector ? state.added.value.get(example.vector)?.handle : null;
  return handle ? { handle, weight: example.weight ?? LIKE } : example;
}

function keepVector(request: SearchRequest, { query: { vector } }: SearchAnswer): void {
  const query = state.query.value;
  if (request.examples || (query?.kind !== "upload" && query?.kind !== "url")) return;
  state.query.value = { ...query, vector: vector ?? null };
}

/**
 * Where a whole picture did not find its like, asks once which parts of it one may want to search for: that takes the
 * work of several pictures, and is of no use to those who have found it. What the answer says of likeness is not read.
 */
async function lookForParts(answer: SearchAnswer): Promise<void> {
  const query = state.query.value;
  if ((query?.kind !== "upload" && query?.kind !== "url") || query.regions || state.isEdited.value) return;
  const { level } = bandOf(answer, "picture");
  if (answer.safety?.unsafe || level === 0 || level === 3) return;
  try {
    const regions = await (staysHere(query.picture) ? regionsIn(query.picture) : askForParts());
    const now = state.query.value;
    if (now?.picture !== query.picture || (now.kind !== "upload" && now.kind !== "url")) return;
    state.query.value = { ...now, regions };
    amend(state.query.value);
  } catch {
    // A courtesy: a box can still be drawn by hand.
  }
}

async function askForParts(): Promise<readonly Region[]> {
  const whole: Box = [0, 0, 1, 1];
  const { outcomes } = await state.api.value.searches([{ ...(await pictureNow()), box: whole, regions: true, k: 1 }]);
  return outcomes[0]?.answer?.regions ?? [];
}

function showAnswer(answer: SearchAnswer): void {
  state.answer.value = answer;
  state.phase.value = "done";
  state.problem.value = null;
  state.announcement.value = spoken(answer);
  know(answer.matches.map(({ item }) => item));
}

/** The answer for those who hear the page: how many, and how sure. */
function spoken(answer: SearchAnswer): string {
  if (answer.safety?.unsafe) return t("unsafe.title");
  const band = bandOf(answer, state.askedAs.value);
  const count = answer.matches.length;
  if (count === 0) return answer.query.blank ? band.title : t("results.none");
  return `${t("results.matches", { count })} ${band.title.replace(/[.]?$/, ".")}`;
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
    if (query?.kind === "item" && query.id === id) state.query.value = { ...query, item, picture: pictureOfItem(item) };
  } catch {
    // The search itself tells what is wrong with the item.
  }
}

async function nameExample(example: Example): Promise<void> {
  if (!("item" in example)) return;
  try {
    know([(await state.api.value.item(example.item)).item]);
  } catch {
    // As above.
  }
}

function know(items: readonly Item[]): void {
  state.seen.value = new Map([...state.seen.value, ...items.map((item) => [item.id, item] as const)]);
}

const NO_PICTURE: Picture = { blob: null, src: null, name: "", aspect: null };
const WORDS: Query = { kind: "words", picture: NO_PICTURE };

function linkedQuery({ query }: LinkState): Query {
  if (!query) return { ...WORDS };
  return "item" in query
    ? { kind: "item", id: query.item, item: null, picture: NO_PICTURE }
    : {
        kind: "vector",
        vector: query.vector,
        picture: { ...NO_PICTURE, name: t("picture.linked"), src: pictureOfVector(query.vector) },
      };
}

const pictureOfItem = (item: Item): Picture => ({
  blob: null,
  src: state.pictureAddress(item.image_url),
  name: item.title || t("card.untitled"),
  aspect: null,
});

function problemOf(error: unknown): Trouble {
  if (error instanceof Failure) return error.problem;
  if (error instanceof DeviceTrouble) return troubleOfDevice(error);
  return {
    type: "about:blank",
    title: t("problem.bug"),
    status: 0,
    detail: String(error),
    found: String(error),
    remedy: t("problem.bug.remedy"),
    isOurs: true,
  };
}

/** What the device could not do, and that the server may. */
function troubleOfDevice({ reason, size }: DeviceTrouble): Trouble {
  const [width, height] = size ?? [0, 0];
  const remedy = isAlone.value ? "local.picture.remedy" : "device.send.remedy";
  return {
    type: reason === "little" ? "urn:visor:too_little" : isAlone.value ? "about:blank" : DEVICE_FAILED,
    title: t(`device.${reason}`),
    status: 0,
    detail: "",
    found: size ? t("device.little.found", { width, height }) : t(`device.${reason}.found` as "device.unable.found"),
    remedy: t(reason === "little" ? "device.little.remedy" : remedy),
    isOurs: true,
  };
}

/** What the server may do in the device's place. */
export const DEVICE_FAILED = "urn:visor:device_failed";
const OTHER_MODEL = "urn:visor:other_model";
const UNKNOWN_HANDLE = "urn:visor:unknown_handle";

const otherModel = (): Trouble => ({
  type: "urn:visor:other_model",
  title: t("problem.model"),
  status: 0,
  detail: "",
  found: t("problem.model.found"),
  remedy: t("problem.model.remedy"),
  isOurs: true,
});
