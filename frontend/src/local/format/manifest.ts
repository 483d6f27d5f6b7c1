/** An export's manifest (`docs/formats.md`): the files that it consists of, and Python's constants. */
import type { Chunk } from "../../bytes/chunks";
import { ChunkTrouble } from "../../bytes/trouble";

/** The format that this page reads. */
export const EXPORT_FORMAT = 1;

export interface FileEntry {
  name: string;
  /** Bytes on the server, as they are downloaded. */
  bytes: number;
}

export type AttributeType = "keyword" | "number" | "flag" | "date";

export interface Part {
  rows: number;
  segment: number;
  columns: FileEntry;
  hashes: FileEntry;
  codes_high?: FileEntry;
  codes_low?: FileEntry;
  vectors?: FileEntry;
  looks?: FileEntry;
  pages: string[];
  pages_bytes: number;
}

export interface Manifest {
  format: number;
  id: string;
  made_by: string;
  index: { images: number; generation: number; model: string };
  space: { dimension: number; dimensions: number; file?: FileEntry };
  has_products: boolean;
  products: number;
  attributes: { name: string; type: AttributeType; items: number }[];
  page_rows: number;
  parts: Part[];
  judge: FileEntry;
  hidden?: FileEntry;
  constants: Constants;
  settings: { unsafe_query: number; k_max: number };
  bytes: { pages: number; pictures: number };
}

type Slice = [from: number, to: number];

/** Every constant of Python's code that an answer depends on, so that each is defined in one place. */
export interface Constants {
  search: {
    nearest: number;
    rerank: number;
    rerank_per_segment: number;
    widenings: number;
    duplicates_max: number;
    varied: number;
    guess_from: number;
    copy_confidence: Record<"exact" | "edited" | "similar", number>;
  };
  confidence: {
    confident: number;
    judged: number;
    short_from: number;
    short_weight: number;
    full_kept_max: number;
    rows_compared: number;
    nearer: number;
    alone: [number, number];
    /** Absent in older exports. */
    pairs_enough?: number;
    features: string[];
    label_decay: number;
    sharpness: number;
    shared: number;
    far: Slice;
  };
  across: {
    confident_across: number;
    visitors_min: number;
    side: number;
    held_slope: number;
    first: [number, number, number];
    unlearned: number;
    best_floor: number;
    next: Slice;
    others: Slice;
  };
  fusion: {
    labels_weight: number;
    words_weight: number;
    colours_weight: number;
    /** Absent in older exports. */
    named_weight?: number;
    usual_floor: number;
    words_min: number;
    labels: number;
    labels_kept: number;
    colours: number;
  };
  verdict: {
    same_bits: number;
    same_similarity: number;
    exact_luma_max: number;
    exact_chroma_max: number;
    edited_correlation_min: number;
    edited_similarity_min: number;
    same_vector_min: number;
    covered_min: number;
    contrast_floor: number;
    /** These five are absent in older exports. */
    contrast_large?: number;
    edges_slack?: number;
    rest_scale?: number;
    small_rest_scale?: number;
    gain_max?: number;
    refined_within: number;
    angles: number[];
    cells: number;
    chroma_cells: number;
    plane: number;
    luma_bits: number;
    hash_bytes: number;
    pdq_bytes: number;
  };
  facets: { values_max: number; price_ranges: number; date_ranges: number };
}

/** Reads `visor.json`. Raises `ChunkTrouble` for one that this page cannot read. */
export function readManifest(found: unknown, url: string): Manifest {
  if (typeof found !== "object" || found === null || !("format" in found)) throw new ChunkTrouble("damaged", url);
  const { format } = found;
  if (typeof format !== "number" || format > EXPORT_FORMAT) throw new ChunkTrouble("newer", url);
  return found as Manifest;
}

/** A file of an export as it is fetched: its name ends in the first digits of its checksum. */
export const chunkOf = (name: string, base: string): Chunk => ({
  url: new URL(name, base).href,
  sha256: /-([0-9a-f]{16})\.vsr$/.exec(name)?.[1] ?? "?",
});

/** Every file that the manifest names, by its URL. */
export function filesOf({ space, parts, judge, hidden }: Manifest, base: string): Set<string> {
  const single = [space.file, judge, hidden];
  const ofParts = parts.flatMap(({ columns, hashes, codes_high, codes_low, vectors, looks }) => [
    columns,
    hashes,
    codes_high,
    codes_low,
    vectors,
    looks,
  ]);
  const names = [...single, ...ofParts].flatMap((file) => (file ? [file.name] : []));
  return new Set([...names, ...parts.flatMap(({ pages }) => pages)].map((name) => chunkOf(name, base).url));
}
