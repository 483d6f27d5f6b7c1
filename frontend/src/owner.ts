import { signal } from "@preact/signals";

/**
 * Whether the owner of the catalogue is reading the page: with `?owner` in the URL it also shows what concerns only the
 * owner (classes of the safety check, settings in remedies, metrics, free allowances). None of it is a secret.
 */
export const owner = signal(new URLSearchParams(location.search).has("owner"));

const KEPT = "visor-key";

/**
 * The owner's key, from the link that `visor serve` prints (`#key=…`, which browsers do not send); "" for anybody else.
 * It is removed from the URL, and kept for this tab.
 */
export const ownerKey: string = takeKey();

function keyInAddress(): string | null {
  return new URLSearchParams(location.hash.slice(1)).get("key");
}

/** The link may be opened in a tab that has the page open already: then only the URL changes. */
export function followKey(): void {
  addEventListener("hashchange", () => keyInAddress() !== null && location.reload());
}

function takeKey(): string {
  const given = keyInAddress();
  if (given !== null) history.replaceState(history.state, "", location.pathname + location.search);
  try {
    if (given !== null) sessionStorage.setItem(KEPT, given);
    return given ?? sessionStorage.getItem(KEPT) ?? "";
  } catch {
    // Storage may be switched off: then the key lasts as long as the page is open.
    return given ?? "";
  }
}

export function toggleOwner(): void {
  owner.value = !owner.value;
  const address = new URL(location.href);
  address.search = owner.value ? "?owner" : "";
  history.replaceState(history.state, "", address);
}
