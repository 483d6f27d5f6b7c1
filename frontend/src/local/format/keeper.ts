/** Keeps an export in memory and up to date: each request is answered from one state of it, never from a mix of two. */
import { Chunks, type Progress } from "../../bytes/chunks";
import { Container } from "../../bytes/container";
import { ChunkTrouble } from "../../bytes/trouble";
import type { DeviceModel, Item, StatsAnswer } from "../../endpoint/contract";
import type { LocalSearch } from "../answer";
import { bytesOf, fetchManifest, loadExport } from "./load";
import { chunkOf, filesOf, type Manifest, readManifest } from "./manifest";

/** Pages of items are prefetched if all of them together are no larger: then a site is complete without a network. */
const AHEAD_BYTES = 64_000_000;
/** How often a page that stays open looks for a newer export. */
const LOOK_AGAIN_MS = 10 * 60_000;
/** How often a page that prefetches checks for requests. */
const QUIET_MS = 200;
const CACHE = "visor-export";
/** The name under which the service worker looks for them. */
const PICTURES = "visor-pictures";

export interface KeeperEvents {
  /** How many of the bytes that the first search needs have arrived. */
  progress: (received: number, total: number) => void;
  /** Called when another state of the export answers from now on. */
  changed: () => void;
}

export class Keeper {
  private readonly chunks: Chunks;
  private current: Promise<LocalSearch> | null = null;
  private lookedAt = 0;
  /** Questions that are not answered yet. */
  private asked = 0;
  /** Whether something else needs the line. */
  private isHeld = false;
  private ahead = new AbortController();

  constructor(
    private readonly base: string,
    private readonly events: KeeperEvents,
  ) {
    this.chunks = new Chunks(CACHE);
  }

  /** Whether the files stay for the next visit. */
  get isKept(): boolean {
    return this.chunks.isKept;
  }

  /** What answers now; loaded on first use. Raises `ChunkTrouble`. */
  ready(): Promise<LocalSearch> {
    this.current ??= this.first().catch((error) => {
      this.current = null;
      throw error;
    });
    if (Date.now() - this.lookedAt > LOOK_AGAIN_MS && this.lookedAt > 0) void this.renew();
    return this.current;
  }

  /** Asks what answers now, and once more a newer export if a file of this one is gone. */
  async ask<Answer>(question: (local: LocalSearch) => Promise<Answer> | Answer): Promise<Answer> {
    this.asked += 1;
    try {
      return await question(await this.ready());
    } catch (error) {
      if (!(error instanceof ChunkTrouble) || error.kind !== "missing" || !(await this.renew())) throw error;
      return await question(await this.ready());
    } finally {
      this.asked -= 1;
    }
  }

  /** Pauses or resumes prefetching; complete files are kept. */
  hold(isHeld: boolean): void {
    this.isHeld = isHeld;
    if (isHeld) this.ahead.abort();
  }

  /** Waits until no answer is pending, whose files would share the line with prefetched ones. */
  private async quiet(): Promise<void> {
    do await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
    while (this.isAwaited);
  }

  private get isAwaited(): boolean {
    return this.asked > 0 || this.isHeld;
  }

  async stats(): Promise<StatsAnswer> {
    const [local, told] = await Promise.all([this.ready(), this.model()]);
    const { index, space } = local.manifest;
    const { description, licences = "", allowed = false, size_bytes = 0, closer = false } = told ?? {};
    const { name = "", summary = "" } = (description ?? {}) as { name?: string; summary?: string };
    const model = { name, fingerprint: index.model, dimension: space.dimension, summary, licences };
    return local.stats(model, { allowed, by_default: true, size_bytes, closer });
  }

  /** What a device needs to embed pictures, as the server says now or as it was kept; null if neither is there. */
  async model(): Promise<DeviceModel | null> {
    const response = await fetch(this.modelUrl, { cache: "no-cache", credentials: "omit" }).catch(() => null);
    const told = response?.ok ? new Uint8Array(await response.arrayBuffer()) : null;
    if (told) await this.chunks.keep(this.modelUrl, told);
    const bytes = told ?? (await this.chunks.kept(this.modelUrl));
    return bytes && JSON.parse(new TextDecoder().decode(bytes));
  }

  private async first(): Promise<LocalSearch> {
    const manifest = await this.manifest();
    const total = bytesOf(manifest, "coarse");
    let received = 0;
    const progress: Progress = (bytes) => {
      received = Math.min(received + bytes, total);
      this.events.progress(received, total);
    };
    this.events.progress(0, total);
    const local = await loadExport(manifest, this.base, this.chunks, "coarse", undefined, progress);
    this.events.progress(total, total);
    this.lookedAt = Date.now();
    void this.complete(manifest);
    return local;
  }

  /** Fetches what re-ranks close results, and what a visit without a network needs. */
  private async complete(manifest: Manifest): Promise<void> {
    try {
      const hasMore = manifest.parts.some((part) => part.codes_low);
      if (hasMore) this.current = Promise.resolve(await this.whole(manifest));
      await this.keepManifest(manifest);
      await this.chunks.keepOnly(new Set([...filesOf(manifest, this.base), this.manifestUrl, this.modelUrl]));
      this.events.changed();
      const pages = manifest.parts.flatMap((part) => part.pages);
      if (manifest.parts.reduce((sum, part) => sum + part.pages_bytes, 0) > AHEAD_BYTES) return;
      for (const name of pages) {
        if (this.isAwaited) await this.quiet();
        await this.chunks.keepAhead(chunkOf(name, this.base));
      }
      if (manifest.bytes.pictures <= AHEAD_BYTES) await this.keepPictures(pages);
    } catch {
      // The files that are there answer; the rest is fetched on another visit.
    }
  }

  /** All of an export, when the line is free for it. */
  private async whole(manifest: Manifest): Promise<LocalSearch> {
    for (;;) {
      await this.quiet();
      this.ahead = new AbortController();
      const { signal } = this.ahead;
      try {
        return await loadExport(manifest, this.base, this.chunks, "whole", signal);
      } catch (error) {
        if (!signal.aborted) throw error;
      }
    }
  }

  /** Switches to a newer export, if there is one, when all of it is here. */
  private async renew(): Promise<boolean> {
    this.lookedAt = Date.now();
    try {
      const before = (await this.current)?.manifest.id;
      const manifest = await fetchManifest(this.base);
      if (manifest.id === before) return false;
      this.current = Promise.resolve(await loadExport(manifest, this.base, this.chunks, "whole"));
      void this.complete(manifest);
      this.events.changed();
      return true;
    } catch {
      // The previous state keeps answering.
      return false;
    }
  }

  /** The server's, or without a network the one that was kept. */
  private async manifest(): Promise<Manifest> {
    try {
      return await fetchManifest(this.base);
    } catch (error) {
      const isAway = error instanceof ChunkTrouble && (error.kind === "silent" || error.kind === "refused");
      const kept = isAway ? await this.chunks.kept(this.manifestUrl) : null;
      if (!kept) throw error;
      return readManifest(JSON.parse(new TextDecoder().decode(kept)), this.manifestUrl);
    }
  }

  /** Keeps the small pictures that are next to the catalogue, but not those of other sites. */
  private async keepPictures(pages: readonly string[]): Promise<void> {
    const cache = await caches.open(PICTURES);
    for (const name of pages) {
      const bytes = await this.chunks.get(chunkOf(name, this.base));
      for (const one of Container.open(name, bytes, "export_page").json<({ item: Item } | null)[]>("items")) {
        // URLs are relative to the page, whose folder contains that of the catalogue.
        const url = new URL(one?.item.image_url ?? "", new URL("..", this.base)).href;
        if (url.startsWith(this.base) && url !== this.base && !(await cache.match(url))) await cache.add(url);
      }
    }
  }

  private get modelUrl(): string {
    return new URL("model.json", this.base).href;
  }

  private get manifestUrl(): string {
    return new URL("visor.json", this.base).href;
  }

  private keepManifest(manifest: Manifest): Promise<void> {
    return this.chunks.keep(this.manifestUrl, new TextEncoder().encode(JSON.stringify(manifest)));
  }
}
