/** The backend that answers, and what it holds. */
import { computed, effect } from "@preact/signals";
import { isFit } from "../device/able";
import type { Described } from "../device/model";
import { expectPicture, isAlone, lookAlone, meetOffer, received } from "../device/switch";
import type { StatsAnswer } from "../endpoint/contract";
import { LocalIndex } from "../local/localIndex";
import * as state from "../state";
import { t } from "../words/messages";
import { problemOf } from "./problems";

export const EXAMPLES = 8;
/** After this time nobody waits any longer. */
const IDLE_MS = 1500;

/** Asks the endpoint what it holds. Until it answers, the page says so and offers to try again. */
export async function connect(): Promise<void> {
  const api = state.api.value;
  state.offline.value = null;
  if (state.isLocal.value) lookAlone(describe);
  else isAlone.value = false;
  try {
    await meet();
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
  void api.facets({}).then((found) => (state.catalogueFacets.value = found), ignore);
  void api.examples(EXAMPLES).then(
    ({ items }) => (state.examples.value = items),
    () => (state.examples.value = []),
  );
}

/** Prefetching waits for the model; if only this device can embed, the model is fetched once no request waits. */
export function followModel(): void {
  effect(() => {
    const { value: api } = state.api;
    if (api instanceof LocalIndex) api.hold(received.value !== null || state.isBusy.value);
  });
  const isIdle = computed(() => isAlone.value && state.stats.value !== null && !state.isBusy.value);
  effect(() => {
    if (isIdle.value && isFit()) setTimeout(() => isIdle.value && expectPicture(), IDLE_MS);
  });
}

let meeting: Promise<void> | null = null;

/** Learns what the index holds, and whether this device may embed; the same promise for all callers. */
export function meet(): Promise<void> {
  meeting ??= (async () => {
    await refreshStats();
    const { device, model } = state.stats.value as StatsAnswer;
    const { size_bytes: bytes = 0, by_default: isDefault = false, closer = false } = device ?? {};
    await meetOffer(device?.allowed ? { model: model.fingerprint, isDefault, bytes, closer } : null, describe);
  })().finally(() => {
    meeting = null;
  });
  return meeting;
}

/** What a device has to know about the model. */
async function describe(): Promise<Described | null> {
  const found = await state.api.value.model();
  const { models } = state.config.value;
  return found && { ...found, ...(models && { models }) };
}

/** What the index holds now, and the state of the server. */
export async function refreshStats(): Promise<void> {
  state.stats.value = await state.api.value.stats();
}
