/** What the address bar asks for. */
import { batch } from "@preact/signals";
import { amend, recall } from "../address/history";
import { type Example, readLink } from "../address/link";
import { restoreScroll } from "../scroll";
import * as state from "../state";
import { connect } from "./connect";
import { clear, fail, know, linkedQuery, pictureOfItem, reset, showAnswer } from "./page";
import { otherModel } from "./problems";
import { run, standStill } from "./run";
import { hasTurn, stop, takeTurn } from "./turn";

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

/** Shows what the address bar asks for: a page of this tab, a link from elsewhere, or the start. */
export async function follow(): Promise<void> {
  standStill();
  stop();
  const visit = recall();
  if (visit) {
    batch(() => {
      state.query.value = visit.query;
      state.edit.value = visit.edit;
      state.options.value = visit.options;
      state.linkNotice.value = null;
      showAnswer(visit.answer);
    });
    restoreScroll(visit.scroll);
    // It was left before its item was known.
    if (visit.query.kind === "item" && !visit.query.item) await showItem(visit.query.id);
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
  if (hasVector && state.offline.value) return fail(state.offline.value);
  if (hasVector && known && model && model !== known.model.fingerprint) return fail(otherModel());
  const named = query && "item" in query ? showItem(query.item) : null;
  const names = Promise.all([named, ...options.examples.map(nameExample)]);
  const found = await run("replace");
  if (found && generation !== null && found.index.generation !== generation) state.linkNotice.value = "results.changed";
  await names;
}

/** Asks again what failed: the endpoint if it has not answered at all, then the link or the question on the page. */
export async function retry(): Promise<void> {
  if (state.offline.value) {
    const controller = takeTurn();
    state.phase.value = "preparing";
    await connect();
    if (!hasTurn(controller)) return;
  }
  // The address bar has a link without its answer only until something else is asked for.
  if (!state.answer.value && readLink(location.hash)) await follow();
  else await run("replace");
}

/** A link names an item only by its id; its picture and title come beside the results. */
async function showItem(id: string): Promise<void> {
  try {
    const { item } = await state.api.value.item(id);
    const query = state.query.value;
    if (query?.kind !== "item" || query.id !== id) return;
    state.query.value = { ...query, item, picture: pictureOfItem(item) };
    amend(state.query.value);
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
