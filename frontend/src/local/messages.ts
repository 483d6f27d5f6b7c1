/** Messages between page and worker. */
import type { ChunkTroubleKind } from "../bytes/trouble";
import type {
  DeviceModel,
  FacetsAnswer,
  Filters,
  ItemAnswer,
  ItemsAnswer,
  SearchAnswer,
  StatsAnswer,
} from "../endpoint/contract";
import type { Sought } from "./query";

/** A page's requests by name: what goes in, and what comes back. */
export interface Questions {
  search: { asked: Sought; answer: SearchAnswer };
  facets: { asked: Filters; answer: FacetsAnswer };
  item: { asked: string; answer: ItemAnswer };
  examples: { asked: number; answer: ItemsAnswer };
  model: { asked: null; answer: DeviceModel | null };
  stats: { asked: null; answer: StatsAnswer };
  /** Whether prefetching is paused, because something else needs the line. */
  hold: { asked: boolean; answer: null };
}

export type Asked = {
  [Name in keyof Questions]: { id: number; name: Name; asked: Questions[Name]["asked"] };
}[keyof Questions];

/** Why there is no answer, as data, because an `Error` cannot be sent between threads. */
export type Trouble =
  | { kind: "refusal"; type: string; found: string; valid: string; remedy: string }
  | { kind: ChunkTroubleKind; file: string; status: number }
  | { kind: "bug"; found: string };

export type Told =
  | { id: number; answer: unknown }
  | { id: number; trouble: Trouble }
  | { progress: readonly [received: number, total: number] }
  | { changed: true; isKept: boolean };
