/** Files that are named by their content: fetched, checked, kept in the browser, and fetched again when damaged. */
import { sha256 } from "@noble/hashes/sha2.js";
import { ChunkTrouble } from "./trouble";

/** One file, as a manifest names it. */
export interface Chunk {
  url: string;
  /** Hex digits of the file as it is on the server, compressed or not: all 64, or the first of them. */
  sha256: string;
}

/** How much of the requested files is here: bytes as they come over the wire. */
export type Progress = (received: number) => void;

/** Most files at once: browsers open six connections to a server. */
const AT_ONCE = 6;

/** Where files stay between visits. Without Cache Storage (plain HTTP, some private windows) they are not kept. */
export class Chunks {
  /** Whether something could not be kept: storage is full or switched off. */
  isKept = true;

  constructor(private readonly cacheName: string) {}

  /** The bytes of a file, checked. Raises `ChunkTrouble`, or the reason with which `signal` is aborted. */
  async get(chunk: Chunk, signal?: AbortSignal, progress?: Progress): Promise<Uint8Array<ArrayBuffer>> {
    const cache = await this.cache();
    const kept = await cache?.match(chunk.url).catch(() => undefined);
    if (kept) {
      const raw = new Uint8Array(await kept.arrayBuffer());
      if (await isWhole(raw, chunk)) {
        progress?.(raw.length);
        return inflated(raw);
      }
      await cache?.delete(chunk.url);
    }
    let trouble = new ChunkTrouble("damaged", chunk.url);
    for (const how of ["default", "reload"] as const) {
      try {
        const raw = await download(chunk.url, how, signal, progress);
        if (await isWhole(raw, chunk)) {
          await this.keep(chunk.url, raw);
          return await inflated(raw);
        }
      } catch (error) {
        if (!(error instanceof ChunkTrouble) || error.kind !== "silent") throw error;
        trouble = error;
      }
    }
    throw trouble;
  }

  /** All of them, a few at a time, in their order. */
  async all(chunks: readonly Chunk[], signal?: AbortSignal, progress?: Progress): Promise<Uint8Array<ArrayBuffer>[]> {
    const found = new Array<Uint8Array<ArrayBuffer>>(chunks.length);
    let next = 0;
    const work = async (): Promise<void> => {
      for (let at = next++; at < chunks.length; at = next++) {
        found[at] = await this.get(chunks[at] as Chunk, signal, progress);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    return found;
  }

  /** Fetches a file that is needed later, if it is not kept already. */
  async keepAhead(chunk: Chunk): Promise<void> {
    if (!(await (await this.cache())?.match(chunk.url))) await this.get(chunk);
  }

  /** What is kept under a URL, unchecked; null if nothing is. */
  async kept(url: string): Promise<Uint8Array<ArrayBuffer> | null> {
    const found = await (await this.cache())?.match(url);
    return found ? new Uint8Array(await found.arrayBuffer()) : null;
  }

  /** Removes everything else that is kept. */
  async keepOnly(urls: ReadonlySet<string>): Promise<void> {
    const cache = await this.cache();
    for (const { url } of (await cache?.keys()) ?? []) if (!urls.has(url)) await cache?.delete(url);
  }

  /** Keeps bytes under a URL. */
  async keep(url: string, raw: Uint8Array<ArrayBuffer>): Promise<void> {
    const cache = await this.cache();
    try {
      if (cache) await cache.put(url, new Response(raw));
      else this.isKept = false;
    } catch {
      // Storage is full: the visit continues with what is in memory.
      this.isKept = false;
    }
  }

  private async cache(): Promise<Cache | null> {
    try {
      return await caches.open(this.cacheName);
    } catch {
      return null;
    }
  }
}

async function download(
  url: string,
  cache: RequestCache,
  signal?: AbortSignal,
  progress?: Progress,
): Promise<Uint8Array<ArrayBuffer>> {
  try {
    const response = await fetch(url, { cache, credentials: "omit", ...(signal && { signal }) });
    if (!response.ok) {
      throw new ChunkTrouble(
        response.status === 404 || response.status === 410 ? "missing" : "refused",
        url,
        response.status,
      );
    }
    if (!response.body || !progress) return new Uint8Array(await response.arrayBuffer());
    const parts: Uint8Array<ArrayBuffer>[] = [];
    const reader = response.body.getReader();
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      parts.push(read.value);
      progress(read.value.length);
    }
    return new Uint8Array(await new Blob(parts).arrayBuffer());
  } catch (error) {
    if (error instanceof ChunkTrouble || signal?.aborted) throw error;
    throw new ChunkTrouble("silent", url);
  }
}

/** The bytes, inflated if they are gzip. */
export async function inflated(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const isWhole = async (bytes: Uint8Array<ArrayBuffer>, { sha256: wanted }: Chunk): Promise<boolean> =>
  (await digestOf(bytes)).startsWith(wanted);

/** SHA-256 in hex. Browsers offer their own only to pages that came by HTTPS or from this machine. */
export async function digestOf(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = globalThis.crypto?.subtle
    ? new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))
    : sha256(bytes);
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
