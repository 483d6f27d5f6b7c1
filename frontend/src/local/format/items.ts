/** Items' data besides their vectors, in pages that are fetched when a match is on them. */
import type { Chunks } from "../../bytes/chunks";
import { Container } from "../../bytes/container";
import type { Item, Label } from "../../endpoint/contract";
import { chunkOf, type Manifest } from "./manifest";
import type { Rows } from "./rows";

/** As in the export. */
export interface IndexedItem {
  item: Item;
  width: number;
  height: number;
  labels?: Label[];
  indexed_at: string;
  /** Why there is nothing to compare in its picture, if so. */
  blank?: string;
}

/** A row's item, null if it is lost, and its whole stored hash. */
export interface Known {
  indexed: IndexedItem | null;
  hash: Uint8Array;
}

export class Items {
  /** Pages that were requested, by name. */
  private readonly pages = new Map<string, Promise<Known[]>>();

  constructor(
    private readonly manifest: Manifest,
    private readonly rows: Rows,
    private readonly chunks: Chunks,
    private readonly base: string,
  ) {}

  async get(wanted: Iterable<number>, signal?: AbortSignal): Promise<Map<number, Known>> {
    const found = await Promise.all(
      [...new Set(wanted)].map(async (row) => [row, await this.known(row, signal)] as const),
    );
    return new Map(found.flatMap(([row, known]) => (known ? [[row, known]] : [])));
  }

  private async known(row: number, signal?: AbortSignal): Promise<Known | undefined> {
    const part = this.rows.partOf(row);
    const { page_rows, parts } = this.manifest;
    const at = row - part.start;
    const name = parts[this.rows.parts.indexOf(part)]?.pages[Math.floor(at / page_rows)] ?? "";
    return (await this.page(name, signal))[at % page_rows];
  }

  private page(name: string, signal?: AbortSignal): Promise<Known[]> {
    const asked = this.pages.get(name) ?? this.read(name, signal);
    this.pages.set(name, asked);
    asked.catch(() => this.pages.delete(name));
    return asked;
  }

  private async read(name: string, signal?: AbortSignal): Promise<Known[]> {
    const container = Container.open(name, await this.chunks.get(chunkOf(name, this.base), signal), "export_page");
    const hashes = container.tensor("hashes") as Uint8Array;
    const size = container.shape("hashes")[1] as number;
    return container
      .json<(IndexedItem | null)[]>("items")
      .map((indexed, at) => ({ indexed, hash: hashes.subarray(at * size, (at + 1) * size) }));
  }
}
