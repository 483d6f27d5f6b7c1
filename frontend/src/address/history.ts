import type { SearchAnswer } from "../endpoint/contract";
import { type Edit, pictureOf, type Query, subjectOf } from "../state";
import { asksWithoutPicture, type LinkState, type Options, writeLink } from "./link";

/** One result page. A link holds only the vector; in this tab the picture itself is remembered as well. */
export interface Visit {
  query: Query;
  edit: Edit;
  options: Options;
  answer: SearchAnswer;
  /** How far down the page stood when it was left. */
  scroll: number;
}

const VISITS_MAX = 40;
const visits = new Map<string, Visit>();
/** The visit that is on the page. */
let shown: Visit | null = null;

/** The link to a visit, or null if the answer has nothing to link to. */
export function linkOf({ query, options, answer }: Visit): LinkState | null {
  const { generation, model } = answer.index;
  const picture = pictureOf(query);
  if (picture || (query.kind === "words" && asksWithoutPicture(options)))
    return { query: picture, ...options, generation, model };
  // The answer's vector is that of the picture and the examples together.
  const subject = subjectOf(query, answer);
  return subject && { query: subject, ...options, examples: [], generation, model };
}

/** A step for a search that is running: going back cancels it. */
export function step(): void {
  keepScroll();
  shown = null;
  history.pushState(null, "", location.pathname + location.search);
}

/** Puts a visit into the address bar, in place of the step made for it or of the visit that it refines. */
export function remember(visit: Visit): void {
  const link = linkOf(visit);
  const id = crypto.getRandomValues(new Uint32Array(2)).join("");
  // It is not possible to go back to the visit that it replaces.
  visits.delete(history.state?.visit);
  visits.set(id, visit);
  shown = visit;
  const [oldest] = visits.keys();
  if (visits.size > VISITS_MAX && oldest) visits.delete(oldest);
  const address = link ? `#${writeLink(link)}` : location.pathname + location.search;
  history.replaceState({ visit: id }, "", address);
}

/** Notes what has become known about the picture that is on the page. */
export function amend(query: Query): void {
  if (shown) shown.query = query;
}

/** The remembered visit that the browser stands on, if this tab has made it. */
export function recall(): Visit | null {
  keepScroll();
  const id: unknown = history.state?.visit;
  shown = (typeof id === "string" && visits.get(id)) || null;
  return shown;
}

/** Notes how far down the page stands, before it is left. */
function keepScroll(): void {
  if (shown) shown.scroll = scrollY;
}

/** Back to the start page, as a separate step. */
export function leave(): void {
  if (location.hash || shown) step();
}
