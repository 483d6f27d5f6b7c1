import type { Trouble } from "../endpoint/api";

/** Kinds of problem documents by what a visitor calls them. */
const TITLES: Readonly<Record<string, string>> = {
  undecodable_image: "This picture cannot be read",
  unsafe_image: "This picture is held back",
  fetch_refused: "Pictures from that address are not searched for",
  fetch_failed: "No picture came from that address",
  fetch_unavailable: "That address does not answer for now",
  request_too_large: "The picture is too large",
  request_too_slow: "The picture took too long to arrive",
  key_required: "This search is not open to everybody",
  unknown_handle: "The server has forgotten this picture",
  unknown_item: "That item is not in the catalogue any more",
  store_unavailable: "The search does not work for now",
};

/** What a visitor can do where the document names what only the owner can. */
const REMEDIES: Readonly<Record<string, string>> = {
  fetch_refused: "Save the picture, and choose the file instead",
  fetch_failed: "Save the picture, and choose the file instead",
  key_required: "Ask its owner",
};

const OWNERS_WORDS = /VISOR_|config\.json|\bvisor [a-z]+\b|make [a-z]+ [A-Z]+=|header X-/;

/** A problem in the words of those who cannot change the server; its owner reads the document as it is. */
export function forVisitors(problem: Trouble): Trouble {
  const kind = problem.type.replace(/^urn:visor:/, "");
  const plain = (text: string | undefined): string => {
    const kept = (text ?? "").replace(/, or [^,.]*VISOR_\w+[^,.]*/g, "");
    return OWNERS_WORDS.test(kept) ? "" : kept;
  };
  const asked = plain(problem.remedy);
  return {
    ...problem,
    title: TITLES[kind] ?? problem.title,
    detail: plain(problem.detail),
    found: plain(problem.found),
    valid: plain(problem.valid),
    remedy: asked || (REMEDIES[kind] ?? (problem.remedy ? "Try again in a moment, or tell its owner" : "")),
  };
}
