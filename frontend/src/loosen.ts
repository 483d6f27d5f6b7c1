import type { Options } from "./address/link";
import type { SearchRequest } from "./endpoint/contract";
import { partsOf } from "./filters";
import { requestNow } from "./search/ask";
import { api, options, pictureOf, query } from "./state";
import { partName } from "./words/filters";
import { t } from "./words/messages";

/** One condition of the question, and how many items there are without it. */
export interface Loosening {
  name: string;
  count: number;
  change: Partial<Options>;
}

/** Most searches in one request. */
const SEARCHES_MAX = 16;

/** What to remove from a question without matches, the condition whose removal finds most first. */
export async function loosenings(signal: AbortSignal): Promise<Loosening[]> {
  const { filters, text } = options.value;
  const { mode, metric, examples, group } = requestNow().request;
  const asked: SearchRequest = {
    ...(query.value && pictureOf(query.value)),
    ...(examples && { examples }),
    ...(metric && { metric }),
    ...(group === false && { group }),
    ...(mode && { mode }),
    k: 1,
    facets: true,
  };
  const words = { name: t("chips.words", { words: text }), change: { text: "" } };
  const less = [
    ...partsOf(filters).map((part) => ({ name: partName(part), change: { filters: part.without } })),
    ...(text ? [words] : []),
  ].slice(0, SEARCHES_MAX);
  const { outcomes } = await api.value.searches(
    less.map(({ change }): SearchRequest => {
      const { filters: kept, text: words } = { filters, text, ...change };
      return { ...asked, filters: kept, ...(words && { text: words }) };
    }),
    signal,
  );
  return less
    .map((one, index) => {
      const answer = outcomes[index]?.answer;
      return { ...one, count: answer?.matches.length ? (answer.total ?? answer.facets?.images ?? 0) : 0 };
    })
    .filter(({ count }) => count > 0)
    .sort((a, b) => b.count - a.count);
}
