/** Examples that matches should be like as well, or unlike. */
import { EXAMPLES_MAX, type Example, idOf } from "../address/link";
import { expectPicture } from "../device/switch";
import type { Item } from "../endpoint/contract";
import { preparePicture } from "../picture/picture";
import * as state from "../state";
import { t } from "../words/messages";
import { askBeside } from "./ask";
import { fail, know } from "./page";
import { problemOf } from "./problems";
import { changeOptions, resume, searchWith, standing } from "./search";
import { hasTurn, takeTurn } from "./turn";

/** Searches for what is also like an item, or not like it; a second call undoes that. */
export async function toggleExample(item: Item, weight: number): Promise<void> {
  const isSet = state.options.value.examples.some((one) => idOf(one) === item.id && one.weight === weight);
  know([item]);
  await changeOptions({ examples: withExample({ item: item.id, weight }, !isSet) });
}

/** Searches for what is also like a picture of the visitor's, or not like it. */
export async function addPicture(file: File, weight: number): Promise<void> {
  const before = standing();
  const controller = takeTurn();
  state.phase.value = "preparing";
  expectPicture();
  try {
    const picture = await preparePicture(file, file.name);
    if (!hasTurn(controller)) return;
    if (!picture) {
      state.toast.value = { text: t("ask.nothing") };
      return resume(before);
    }
    // It is embedded first: a link and later searches then name it by the result.
    const found = await askBeside({ kind: "upload", picture }, { k: 1 }, controller.signal);
    if (!hasTurn(controller)) return;
    const { vector, handle = null } = found.query;
    if (!vector || found.safety?.unsafe) {
      state.toast.value = { text: t(found.safety?.unsafe ? "unsafe.title" : "ask.add.failed") };
      return resume(before);
    }
    state.added.value = new Map(state.added.value).set(vector, { picture, handle });
    await searchWith({ examples: withExample({ vector, weight }, true) });
  } catch (error) {
    if (hasTurn(controller)) fail(problemOf(error));
  }
}

function withExample(example: Example, isWanted: boolean): Example[] {
  const others = state.options.value.examples.filter((one) => idOf(one) !== idOf(example));
  return isWanted ? [...others, example].slice(-EXAMPLES_MAX) : others;
}
