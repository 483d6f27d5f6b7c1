import type { Trouble } from "../endpoint/api";
import { type Key, language, locale, t } from "./messages";

/** Kinds of problem documents in a visitor's words, and what a visitor can do about them. */
const KINDS: Readonly<Record<string, readonly [title: Key, remedy?: Key]>> = {
  undecodable_image: ["problem.undecodable_image", "problem.undecodable_image.remedy"],
  unsafe_image: ["problem.unsafe_image"],
  fetch_refused: ["problem.fetch_refused", "problem.save"],
  fetch_failed: ["problem.fetch_failed", "problem.save"],
  fetch_unavailable: ["problem.fetch_unavailable", "problem.save"],
  request_too_large: ["problem.request_too_large", "problem.request_too_large.remedy"],
  request_too_slow: ["problem.request_too_slow", "problem.moment"],
  key_required: ["problem.key_required", "problem.ask"],
  unknown_handle: ["problem.unknown_handle", "problem.model.remedy"],
  unknown_item: ["problem.unknown_item", "problem.unknown_item.remedy"],
  store_unavailable: ["problem.store_unavailable", "problem.moment"],
  quota_reached: ["problem.quota_reached", "problem.moment"],
};

const OWNERS_WORDS = /VISOR_|config\.json|\bvisor [a-z]+\b|make [a-z]+ [A-Z]+=|header X-/;

/**
 * A problem in words for those who cannot change the server; its owner reads the document as it is. Servers write
 * English: in other languages, the page says what it knows about the kind.
 */
export function forVisitors(problem: Trouble): Trouble {
  const [title, remedy] = KINDS[problem.type.replace(/^urn:visor:/, "")] ?? [];
  // The button to try again says when, if that is known.
  const isTimed = problem.status === 429 && problem.retryAfterS !== undefined;
  // An invalid request stays invalid.
  const other = problem.status === 400 ? "problem.ask" : "problem.owner";
  const known = isTimed ? "" : remedy ? t(remedy) : problem.remedy ? t(other) : "";
  if (!problem.isOurs && language.value !== "en") {
    return {
      ...problem,
      title: t(title ?? "problem.other"),
      detail: "",
      found: "",
      valid: "",
      remedy: known,
    };
  }
  const plain = (text: string | undefined): string => {
    const kept = (text ?? "").replace(/, or [^,.]*VISOR_\w+[^,.]*/g, "");
    return OWNERS_WORDS.test(kept) ? "" : kept;
  };
  return {
    ...problem,
    title: title ? t(title) : problem.title,
    detail: plain(problem.detail),
    found: plain(problem.found),
    valid: plain(problem.valid),
    remedy: plain(problem.remedy) || (problem.remedy ? known : ""),
  };
}

/** When to try again, given the seconds until then: in seconds, at a time today, or on another day. */
export function retryIn(seconds: number, now: number = Date.now()): string {
  if (seconds < 100) return t("problem.retry.in", { seconds });
  const until = new Date(now + seconds * 1000);
  const written = (style: Intl.DateTimeFormatOptions) => new Intl.DateTimeFormat(locale.value, style).format(until);
  return until.toDateString() === new Date(now).toDateString()
    ? t("problem.retry.at", { time: written({ timeStyle: "short" }) })
    : t("problem.retry.on", { date: written({ dateStyle: "medium" }) });
}
