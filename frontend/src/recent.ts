import { effect, signal } from "@preact/signals";
import type { Visit } from "./address/history";
import { K_DEFAULT, type LinkState, toUrlSafe, writeLink } from "./address/link";
import { followStorage } from "./storage";
import { nameOfFilters } from "./words/filters";

/** A search that this browser made. */
export interface Recent {
  /** The part of its link after `#`. */
  link: string;
  name: string;
  /** Its picture, small; "" if there is none to show. */
  picture: string;
}

const KEPT = "visor-recent";
const RECENT_MAX = 8;
const SIDE = 192;

/** The searches of this browser, the latest first. They are not sent to anybody. */
export const recent = signal<readonly Recent[]>([]);

export function followRecent(): void {
  const read = () => {
    try {
      const kept: unknown = JSON.parse(localStorage.getItem(KEPT) ?? "[]");
      if (Array.isArray(kept)) recent.value = kept.filter(isRecent).slice(0, RECENT_MAX);
    } catch {
      // Storage may be switched off: then it lasts as long as the page is open.
    }
  };
  read();
  followStorage(KEPT, read);
  effect(() => {
    try {
      if (recent.value.length > 0) localStorage.setItem(KEPT, JSON.stringify(recent.value));
      else localStorage.removeItem(KEPT);
    } catch {
      // As above.
    }
  });
}

/** The small picture of an earlier search by its vector, as a link does not hold the picture; null if it is forgotten. */
export const pictureOfVector = (vector: string): string | null =>
  recent.value.find(({ link }) => link.endsWith(`q=${toUrlSafe(vector)}`))?.picture || null;

/** Notes an answered search, unless it was held back. A repeated search becomes the latest; a stranger's is not noted. */
export async function keepRecent({ query, options, answer }: Visit, link: LinkState | null): Promise<void> {
  if (!link || answer.safety?.unsafe || answer.query.blank) return;
  const { text, filters } = options;
  const name = [query.picture.name, text].filter(Boolean).join(", ") || nameOfFilters(filters);
  if (!name) return;
  const address = writeLink({ ...link, k: K_DEFAULT, generation: null });
  const known = recent.value.find((one) => one.link === address);
  if (!known && query.kind === "vector") return;
  const picture = query.picture.blob ? await shrink(query.picture.blob) : (query.picture.src ?? "");
  // The generation and the model show whether a link is out of date; a recent search is run again.
  const found = known ?? { link: address, name, picture };
  // Cameras give many photos one name.
  const others = recent.value.filter((one) => one.name !== found.name || one.picture !== found.picture);
  recent.value = [found, ...others].slice(0, RECENT_MAX);
}

export const forget = (which: Recent | null): void => {
  recent.value = which ? recent.value.filter((one) => one !== which) : [];
};

const isRecent = (found: unknown): found is Recent =>
  typeof found === "object" &&
  found !== null &&
  ["link", "name", "picture"].every((part) => typeof (found as Record<string, unknown>)[part] === "string");

/** The picture as a small `data:` URL, or "" if the browser cannot draw it. */
async function shrink(blob: Blob): Promise<string> {
  try {
    const bitmap = await createImageBitmap(blob);
    const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    canvas.getContext("2d")?.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
    return canvas.toDataURL("image/jpeg", 0.7);
  } catch {
    return "";
  }
}
