import { signal } from "@preact/signals";

/**
 * Whether the page is read by the owner of the catalogue: with `?owner` in the address it also shows what concerns
 * nobody else (classes of the safety check, settings in remedies, metrics, free allowances). None of it is a secret.
 */
export const owner = signal(new URLSearchParams(location.search).has("owner"));

export function toggleOwner(): void {
  owner.value = !owner.value;
  const address = new URL(location.href);
  address.search = owner.value ? "?owner" : "";
  history.replaceState(history.state, "", address);
}
