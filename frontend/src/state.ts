import { computed, signal } from "@preact/signals";
import { DEFAULT_OPTIONS, type Options } from "./address/link";
import type { Config } from "./config";
import { Api, type Trouble } from "./endpoint/api";
import type { Backend } from "./endpoint/backend";
import type { Box, FacetsAnswer, Item, Region, SearchAnswer, StatsAnswer } from "./endpoint/contract";
import { LocalIndex } from "./local/localIndex";
import { ownerKey } from "./owner";
import { isEmpty, type Mask } from "./picture/mask";
import type { Picture } from "./picture/picture";
import type { Key } from "./words/messages";
import type { Asked } from "./words/sureness";

/** What is searched for: a picture, or (`words`) what the options say. */
export type Query =
  | ({ kind: "upload"; picture: Picture } & Told)
  | ({ kind: "url"; url: string; picture: Picture } & Told)
  | { kind: "words"; picture: Picture }
  | { kind: "item"; id: string; item: Item | null; picture: Picture }
  | { kind: "vector"; vector: string; picture: Picture };

/** What an answer told of a picture that was sent. */
interface Told {
  regions?: readonly Region[];
  /** Of the picture as it is edited, without what was asked for beside it. */
  vector?: string | null;
}

/** The part of the picture that counts. */
export interface Edit {
  box: Box | null;
  mask: Mask | null;
}

export const NO_EDIT: Edit = { box: null, mask: null };

export type Phase = "idle" | "preparing" | "searching" | "done" | "failed";

export const config = signal<Config>({ endpoint: "", title: "Visor", notes: [] });
/** Whether the files of an export cannot be used, and the server beside them answers. */
export const isServed = signal(false);
export const api = computed((): Backend => {
  const { exported, endpoint } = config.value;
  return exported && !isServed.value ? new LocalIndex(exported) : new Api(endpoint, ownerKey);
});
/** Whether the page searches files by itself: no words, no addresses, nothing that is sent. */
export const isLocal = computed(() => api.value instanceof LocalIndex);

export const stats = signal<StatsAnswer | null>(null);
/** Why the start failed: the endpoint does not answer. */
export const offline = signal<Trouble | null>(null);
/** Items to start from; null until the endpoint has named them. */
export const examples = signal<Item[] | null>(null);
/** Facet values of the whole index. */
export const catalogueFacets = signal<FacetsAnswer | null>(null);
/** Facet values of what words alone find, before any filter; null where nothing is asked for in words alone. */
export const wordsFacets = signal<FacetsAnswer | null>(null);
/** Facet values of all that filters choose from. */
export const facets = computed(() => wordsFacets.value ?? catalogueFacets.value);

export const query = signal<Query | null>(null);
export const edit = signal<Edit>(NO_EDIT);
export const options = signal<Options>(DEFAULT_OPTIONS);
export const phase = signal<Phase>("idle");
export const answer = signal<SearchAnswer | null>(null);
/** What went wrong: with the search if that has failed, else with the matches behind those that are shown. */
export const problem = signal<Trouble | null>(null);
/** What is to be said of a link, such as that it was made with another state of the catalogue. */
export const linkNotice = signal<Key | null>(null);
/** Pairs of a query and an item that were said to be no match, by `pairOf`. */
export const rejected = signal<ReadonlySet<string>>(new Set());

/** What is read out to those who do not see the page change. */
export const announcement = signal("");
/** Has something read out, also where it is what was read out last. */
export const announce = (text: string): void => {
  announcement.value = text && text === announcement.peek() ? `${text}\u00a0` : text;
};
export interface Toast {
  text: string;
  action?: { label: string; run: () => void };
}
/** A short message at the bottom, with perhaps one thing to do about it. */
export const toast = signal<Toast | null>(null);

/** Where a picture of the catalogue is: the server names the frames that it keeps itself by a path. */
export const pictureAddress = (src: string): string =>
  src.startsWith("./v1/") ? config.value.endpoint + src.slice(1) : src;

/** What an answer was asked for, as links and feedback name it; null where the answer gave nothing to name it by. */
export function subjectOf(
  asked: Query | null,
  given: SearchAnswer | null,
): { item: string } | { vector: string } | null {
  if (asked?.kind === "item") return { item: asked.id };
  const vector = given?.query.vector ?? (asked?.kind === "vector" ? asked.vector : null);
  return vector ? { vector } : null;
}
export const subject = computed(() => subjectOf(query.value, answer.value));

/** What names the picture alone, where words and examples are told beside it; null where nothing does. */
export function pictureOf(asked: Query): { item: string } | { vector: string } | null {
  if (asked.kind === "item") return { item: asked.id };
  return asked.kind !== "words" && asked.vector ? { vector: asked.vector } : null;
}

/** Items are judged by other words than pictures, and words by none. */
export const askedAs = computed((): Asked => {
  const { text, examples } = options.value;
  if (query.value?.kind !== "words") return query.value?.kind === "item" ? "item" : "picture";
  return text ? "words" : examples.length > 0 ? "examples" : "browse";
});

/** The words that choose what is shown; beside a picture they only order it. */
export const wordsAlone = computed(() =>
  askedAs.value === "words" && options.value.examples.length === 0 ? options.value.text : "",
);

/** Pictures of the visitor's own that were added, by their vectors; handle: how the server names one for some minutes. */
export const added = signal<ReadonlyMap<string, { picture: Picture; handle: string | null }>>(new Map());

/** Items that the page has seen, by their ids: examples are named by an id alone. */
export const seen = signal<ReadonlyMap<string, Item>>(new Map());

export const isBusy = computed(() => phase.value === "preparing" || phase.value === "searching");
export const isEdited = computed(() => edit.value.box !== null || !isEmpty(edit.value.mask));
/** A box and paint go with a picture that is shown and sent, not with a vector. */
export const canEdit = computed(() => {
  const current = query.value;
  return (current?.kind === "upload" || current?.kind === "url") && current.picture.src !== null;
});
export const can = (capability: string): boolean => stats.value?.capabilities?.includes(capability) ?? false;
