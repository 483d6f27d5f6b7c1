/** How a question is sent: with a picture, with the server's handle for it, or with what this device saw in it. */

import { LIKE } from "../address/link";
import { isUndecided, lookAt, regionsIn, staysHere } from "../device/switch";
import { Failure } from "../endpoint/api";
import type {
  Box,
  Picture as ComparedPicture,
  Region,
  Example as RequestExample,
  SearchAnswer,
  SearchRequest,
} from "../endpoint/contract";
import { countFilters } from "../filters";
import { boxesOf } from "../picture/mask";
import { type Picture, toBase64 } from "../picture/picture";
import type { Query } from "../state";
import * as state from "../state";
import { meet } from "./connect";
import { OTHER_MODEL, UNKNOWN_HANDLE } from "./problems";

/** The last picture, and the server's handle for it. */
let seen: { picture: Picture; shown: string; handle: string } | null = null;

/**
 * The server remembers for some minutes what it saw in a picture, or what this device sent about it, so another filter
 * or page does not send it again.
 */
export async function ask(query: Query, request: SearchRequest, picture: Blob | null, signal: AbortSignal) {
  const isHere = await isLookedAtHere(query.picture);
  const shown = JSON.stringify([request.box, request.exclude, isHere]);
  // This device embeds what is left of the picture.
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
  // For a picture together with examples, the handle is not that of the picture.
  const isSent = (query.kind === "upload" || query.kind === "url") && !request.examples;
  seen = handle && isSent ? { picture: query.picture, shown, handle } : null;
  return answer;
}

/** Searches for a picture in addition to the one on the page, whose handle stays. */
export async function askBeside(query: Query, request: SearchRequest, signal: AbortSignal): Promise<SearchAnswer> {
  const kept = seen;
  const answer = await ask(query, request, query.picture.blob, signal);
  seen = kept;
  return answer;
}

/** No picture is sent before it is known whether it stays here. */
async function isLookedAtHere(picture: Picture): Promise<boolean> {
  if (picture.file && isUndecided()) await meet();
  return staysHere(picture);
}

/** The server knows more about a picture that it remembers than its vector. */
function byHandle(example: RequestExample): RequestExample {
  const handle = example.vector ? state.added.value.get(example.vector)?.handle : null;
  return handle ? { handle, weight: example.weight ?? LIKE } : example;
}

/** Of a picture's matches, how many the nearest are put in another order: the cheapest of all would be like nothing. */
const ORDERED = 24;

/** The request for what is on the page, without its picture's bytes. */
export function requestNow(): { request: SearchRequest; picture: Blob | null } {
  const query = state.query.value;
  const { filters, mode, metric, k, text, examples, sort, variety, group } = state.options.value;
  const isFiltered = countFilters(filters) > 0;
  const request: SearchRequest = { k, mode, ...(isFiltered && { filters }) };
  if (isFiltered || state.wordsAlone.value) request.facets = true;
  // A metric compares vectors; words have none.
  if (metric && !text) request.metric = metric;
  if (text) request.text = text;
  if (examples.length > 0) request.examples = [...examples];
  if (sort !== "likeness") request.sort = sort;
  if (sort !== "likeness" && ((query && query.kind !== "words") || examples.length > 0)) request.nearest = ORDERED;
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

/** The picture on the page, in the form for comparing it with another. */
export async function pictureNow(): Promise<ComparedPicture> {
  const query = state.query.value;
  const { box } = state.edit.value;
  const part = box ? { box } : {};
  if (query?.kind === "item") return { item: query.id };
  if (query?.kind === "url") return { url: query.url, ...part };
  const blob = query?.kind === "upload" ? query.picture.blob : null;
  return { image: blob ? await toBase64(blob) : "", ...part };
}

/** The parts of a picture that one may want to search for. */
export const partsOf = (picture: Picture): Promise<readonly Region[]> =>
  staysHere(picture) ? regionsIn(picture) : askForParts();

async function askForParts(): Promise<readonly Region[]> {
  const whole: Box = [0, 0, 1, 1];
  const { outcomes } = await state.api.value.searches([{ ...(await pictureNow()), box: whole, regions: true, k: 1 }]);
  return outcomes[0]?.answer?.regions ?? [];
}
