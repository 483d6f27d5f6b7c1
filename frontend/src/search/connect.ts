/** What answers, and what it holds. */
import { isAlone, meetModel } from "../device/switch";
import * as state from "../state";
import { t } from "../words/messages";
import { problemOf } from "./problems";

export const EXAMPLES = 8;

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
export async function meet(): Promise<void> {
  const found = await state.api.value.model();
  const { models } = state.config.value;
  await meetModel(found && { ...found, ...(models && { models }) });
}

/** What the index holds and how the server does, as of now. */
export async function refreshStats(): Promise<void> {
  state.stats.value = await state.api.value.stats();
}
