import { effect } from "@preact/signals";
import { announce, api, rejected, subject, toast } from "../state";
import { followStorage } from "../storage";
import { t } from "../words/messages";
import type { Item } from "./contract";

/** How long it can be undone; only then is it sent. */
export const REGRET_MS = 6000;

type Subject = NonNullable<typeof subject.value>;
/** Enough of a vector's text to distinguish it from every other, and little to keep. */
const SUBJECT_CHARS = 96;
const pairOf = (asked: Subject, item: string): string =>
  `${String(Object.values(asked)[0]).slice(0, SUBJECT_CHARS)} ${item}`;

const KEPT = "visor-rejected";
const PAIRS_MAX = 500;

/** A searcher's feedback counts for that searcher and is kept in the browser; it counts for all once the owner accepts. */
export function followRejected(): void {
  const read = () => {
    try {
      const kept: unknown = JSON.parse(localStorage.getItem(KEPT) ?? "[]");
      if (Array.isArray(kept)) rejected.value = new Set(kept.map(String));
    } catch {
      // Storage may be switched off: then it counts as long as the page is open.
    }
  };
  read();
  followStorage(KEPT, read);
  effect(() => {
    try {
      localStorage.setItem(KEPT, JSON.stringify([...rejected.value].slice(-PAIRS_MAX)));
    } catch {
      // As above.
    }
  });
}

/** Tells the owner that an answer should not have been held back. It changes nothing at once. */
export async function callHarmless(asked: Subject): Promise<boolean> {
  try {
    await api.value.feedback(null, asked);
    announce(t("unsafe.kept"));
    return true;
  } catch {
    toast.value = { text: t("unsafe.notKept") };
    return false;
  }
}

/** Whether an item was said not to match what is on the page. */
export function isRejected(item: string): boolean {
  const asked = subject.value;
  return asked !== null && rejected.value.has(pairOf(asked, item));
}

/** Hides a result that is not a match, and tells the endpoint unless that is undone at once. */
export function rejectMatch(item: Item): void {
  const asked = subject.value;
  if (!asked) return;
  const name = item.title || t("reject.item");
  const pair = pairOf(asked, item.id);
  const endpoint = api.value;
  rejected.value = new Set([...rejected.value, pair]);
  announce(t("reject.hidden.name", { name }));
  const send = () => {
    settle();
    endpoint.feedback(item.id, asked).catch(() => {
      toast.value = { text: t("reject.notKept", { name }) };
    });
  };
  const timer = setTimeout(send, REGRET_MS);
  const settle = () => {
    clearTimeout(timer);
    removeEventListener("pagehide", send);
  };
  const undo = () => {
    settle();
    rejected.value = new Set([...rejected.value].filter((one) => one !== pair));
    announce(t("reject.shown", { name }));
    toast.value = null;
  };
  addEventListener("pagehide", send);
  toast.value = { text: t("reject.hidden"), action: { label: t("reject.undo"), run: undo } };
}
