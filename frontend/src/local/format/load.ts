/** Fetches an export's files and puts them in memory. */
import type { Chunk, Chunks, Progress } from "../../bytes/chunks";
import { ChunkTrouble } from "../../bytes/trouble";
import { LocalSearch } from "../answer";
import { chunkOf, type Manifest, readManifest } from "./manifest";
import type { PartFiles } from "./rows";

/** Which codes are there: their upper halves are enough to search, the lower ones re-rank close results. */
export type Detail = "coarse" | "whole";

const PART_FILES = ["columns", "hashes", "codes_high", "codes_low", "vectors", "looks"] as const;

/** The manifest as it is on the server. Raises `ChunkTrouble`. */
export async function fetchManifest(base: string): Promise<Manifest> {
  const url = new URL("visor.json", base).href;
  let response: Response;
  try {
    // Servers compare times by the second, and an export may be written twice in one.
    response = await fetch(url, { cache: "no-store", credentials: "omit" });
  } catch {
    throw new ChunkTrouble("silent", url);
  }
  if (!response.ok) throw new ChunkTrouble(response.status === 404 ? "missing" : "refused", url, response.status);
  return readManifest(await response.json().catch(() => null), url);
}

/** Bytes that have to be here before a search can begin. */
export const bytesOf = (manifest: Manifest, detail: Detail): number =>
  wanted(manifest, detail).reduce((sum, { bytes }) => sum + bytes, 0);

/** An export in memory. Raises `ChunkTrouble`, or the reason with which `signal` is aborted. */
export async function loadExport(
  manifest: Manifest,
  base: string,
  chunks: Chunks,
  detail: Detail,
  signal?: AbortSignal,
  progress?: Progress,
): Promise<LocalSearch> {
  const files = wanted(manifest, detail);
  const bytes = await chunks.all(
    files.map(({ name }): Chunk => chunkOf(name, base)),
    signal,
    progress,
  );
  const byName = new Map(files.map(({ name }, at) => [name, bytes[at] as Uint8Array<ArrayBuffer>]));
  const read = (file: { name: string } | undefined) => (file && byName.get(file.name)) ?? null;
  const parts = manifest.parts.map((part): PartFiles => {
    const mine = PART_FILES.flatMap((kind) => {
      const found = read(part[kind]);
      return found ? [[kind, found] as const] : [];
    });
    return Object.fromEntries(mine);
  });
  const judge = read(manifest.judge);
  if (!judge) throw new ChunkTrouble("missing", manifest.judge.name);
  const own = { space: read(manifest.space.file), judge, hidden: read(manifest.hidden), parts };
  return new LocalSearch(manifest, own, chunks, base);
}

function wanted(manifest: Manifest, detail: Detail): { name: string; bytes: number }[] {
  const { space, judge, hidden, parts } = manifest;
  const kinds = PART_FILES.filter((kind) => detail === "whole" || kind !== "codes_low");
  const files = [space.file, judge, hidden, ...parts.flatMap((part) => kinds.map((kind) => part[kind]))];
  return files.filter((file) => file !== undefined);
}
