import type { Item } from "./contract";
import { announcement, answer, api, query, rejected, toast } from "./state";

/** This long it can be taken back; only then it is sent. */
const REGRET_MS = 6000;

/** Hides a result that is no match, and tells the endpoint unless that is undone at once. */
export function rejectMatch(item: Item): void {
  const asked = query.value;
  const vector = answer.value?.query.vector;
  if (!asked) return;
  const subject = asked.kind === "item" ? { item: asked.id } : vector ? { vector } : null;
  rejected.value = new Set([...rejected.value, item.id]);
  announcement.value = `${item.title || "The item"} is hidden: not a match.`;

  const endpoint = api.value;
  let settled = false;
  const send = () => {
    if (settled) return;
    settled = true;
    removeEventListener("pagehide", send);
    // What cannot be kept now is hidden on this page all the same.
    if (subject) endpoint.feedback(item.id, subject).catch(() => undefined);
  };
  const timer = setTimeout(send, REGRET_MS);
  addEventListener("pagehide", send);
  toast.value = {
    text: "Hidden: not a match.",
    action: {
      label: "Undo",
      run: () => {
        settled = true;
        clearTimeout(timer);
        removeEventListener("pagehide", send);
        rejected.value = new Set([...rejected.value].filter((id) => id !== item.id));
        toast.value = null;
      },
    },
  };
}
