import { Chunks, type Progress } from "../bytes/chunks";
import type { DeviceModel as Told } from "../endpoint/contract";

/** The answer of `GET /v1/model` (visor/models/device.py): what a device needs to embed as the index's model does. */
export interface DeviceModel {
  fingerprint: string;
  allowed: boolean;
  /** Why not, as a sentence. */
  reason: string;
  description: { name: string; dimension: number; parts: Part[] };
  label_names: string[];
  files: ModelFile[];
  /** Size of all files. */
  size_bytes: number;
  licences: string;
  centre_share: number;
  closer_views: number[];
  /** Whether the index wants a closer look as well. */
  closer: boolean;
}

export interface Part {
  network: Network;
  weight: number;
}

export interface Network {
  name: string;
  preprocessing: Preprocessing;
  taps: { layer: string; channels: number; edge: number }[];
  power: number;
  signed: boolean;
  head: "labels" | "safety" | null;
  logits: boolean;
}

export type View = "whole" | "centre" | number;

export interface Preprocessing {
  size: number;
  resample: "bilinear" | "bicubic";
  mean: number[];
  deviation: number[];
  views: View[];
  order: "rgb" | "bgr";
}

export interface ModelFile {
  network: string;
  /** Relative to the URL of the description. */
  url: string;
  size_bytes: number;
  sha256: string;
  /** Positions of taps and head in a file that Visor did not make; none: averaged taps, the head, then the maps. */
  outputs: number[];
}

/** Order of the classes of the safety head. */
export const SAFETY_CLASSES = ["drawing", "hentai", "neutral", "porn", "sexy"];

const CACHE = "visor-model";

/** A model's description and where it is. */
export interface Described {
  model: Told;
  /** URL to which the files' URLs are relative. */
  base: string;
  /** Folder of files named by their checksums, if the owner serves them from elsewhere. */
  models?: string;
}

const addressOf = (file: Pick<ModelFile, "url" | "sha256">, { base, models }: Described): string =>
  models ? new URL(`${file.sha256}.tflite`, models).href : new URL(file.url, base).href;

/** The files' bytes by the names of their networks: kept ones, or fetched, checked and kept. Raises `ChunkTrouble`. */
export async function modelFiles(
  described: Described,
  signal?: AbortSignal,
  progress?: Progress,
): Promise<{ files: Map<string, Uint8Array<ArrayBuffer>>; isKept: boolean }> {
  const wanted = described.model.files ?? [];
  const chunks = new Chunks(CACHE);
  const files = new Map<string, Uint8Array<ArrayBuffer>>();
  // One after the other: complete files are kept if the tab is closed before the rest has arrived.
  for (const file of wanted) {
    files.set(file.network, await chunks.get({ ...file, url: addressOf(file, described) }, signal, progress));
  }
  // A visit that has all files requests nothing.
  await chunks.keep(keptAs(described), new TextEncoder().encode(JSON.stringify(described)));
  const kept = [...wanted.map((file) => addressOf(file, described)), keptAs(described)];
  await chunks.keepOnly(new Set(kept)).catch(() => undefined);
  return { files, isKept: chunks.isKept };
}

const keptAs = ({ model, base }: Described): string => new URL(`?kept=${model.fingerprint}`, base).href;

/** The description of a model as it was kept with its files; null if it was not. */
export async function keptModel(fingerprint: string): Promise<Described | null> {
  const cache = await openCache();
  const found = (await cache?.keys())?.find(({ url }) => url.endsWith(`?kept=${fingerprint}`));
  const kept = found && (await cache?.match(found));
  return kept ? await kept.json() : null;
}

/** Bytes of a model's files that are not kept yet. */
export async function missingBytes(described: Described): Promise<number> {
  const cache = await openCache();
  const missing = await Promise.all(
    (described.model.files ?? []).map(async (file) =>
      (await cache?.match(addressOf(file, described))) ? 0 : file.size_bytes,
    ),
  );
  return missing.reduce((sum, bytes) => sum + bytes, 0);
}

async function openCache(): Promise<Cache | null> {
  try {
    return await caches.open(CACHE);
  } catch {
    return null;
  }
}

const USUAL = { reason: "", label_names: [], files: [], size_bytes: 0, closer: false };
const USUAL_LOOK = { centre_share: 0.875, closer_views: [0.6, 0.4] };
const USUAL_PREPROCESSING = { views: ["whole"] satisfies View[], order: "rgb" } as const;

/** A description as it was sent: defaults were left out of it. */
export function readModel(found: Told): DeviceModel {
  const parts = found.description.parts.map(({ network, weight }) => {
    const preprocessing = { ...USUAL_PREPROCESSING, ...network.preprocessing } as Preprocessing;
    return { weight, network: { ...network, preprocessing } };
  });
  const model = { ...USUAL, ...USUAL_LOOK, ...found, description: { ...found.description, parts } };
  return { ...model, files: model.files.map((file) => ({ ...file, outputs: file.outputs ?? [] })) };
}
