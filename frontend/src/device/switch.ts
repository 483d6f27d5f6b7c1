import { computed, signal } from "@preact/signals";
import { ChunkTrouble } from "../bytes/trouble";
import type { Box, Region, Seen } from "../endpoint/contract";
import type { Picture } from "../picture/picture";
import { isAble, isFit } from "./able";
import { Device, DeviceTrouble } from "./device";
import type { Looked, Reason } from "./messages";
import { type Described, keptModel, missingBytes } from "./model";

/** Whether this device embeds pictures, as the visitor chose; `starting` while it is tried. */
const KEPT = "visor-device";
/** The runtime as the page itself serves it. */
const RUNTIME_BYTES = 3_100_000;

/** What the index's owner offers to devices (`device` of `GET /v1/stats`). */
export interface Offer {
  /** The model's fingerprint. */
  model: string;
  /** Whether an able device embeds pictures by default. */
  isDefault: boolean;
  bytes: number;
  closer: boolean;
}

/** What is offered; null if nothing is; undefined until the server has answered. */
export const offer = signal<Offer | null | undefined>(undefined);
/** Whether there is no server that a picture could be sent to: then only this device can embed it. */
export const isAlone = signal(false);
/** Whether pictures stay here. This is not known before the offer is there. */
export const isOn = signal(readChoice() === "on");
/** Bytes that have to be fetched before the first picture can be embedded. */
export const toFetch = signal(0);
/** Bytes of the model's files, as they are fetched … */
export const modelBytes = signal(0);
/** … and those that have arrived, during the download; null otherwise. */
export const received = signal<number | null>(null);
/** Why the device could not embed; the switch is off then. */
export const failure = signal<Reason | null>(null);
/** Whether the model stays for the next visit. */
export const isKept = signal(true);

/** Whether there is something to switch. */
export const canSwitch = computed(() => Boolean(offer.value) && isAble() && !isAlone.value);

const device = new Device();
let loading: Promise<void> | null = null;
/** Requests the description of the model. */
let describe: () => Promise<Described | null> = () => Promise.resolve(null);
/** Pictures that the visitor sent although the device embeds. */
const sent = new WeakSet<Picture>();
/** The last embedding: another filter or page needs no new one. */
let last: { picture: Picture; part: string; seen: Promise<Seen> } | null = null;

/**
 * Learns what is offered, and how to request the rest, which is done when a picture is expected. The device embeds if
 * the visitor chose so, or, without a choice, if it can do so easily or has the model already.
 */
export async function meetOffer(found: Offer | null, ask: () => Promise<Described | null>): Promise<void> {
  if (offer.value && found?.model !== offer.value.model) forget();
  describe = ask;
  if (!found || !isAble()) {
    offer.value = found;
    isOn.value = false;
    return;
  }
  const kept = await keptModel(found.model).catch(() => null);
  toFetch.value = kept ? await bytesToFetch(kept) : found.bytes + RUNTIME_BYTES;
  const chosen = isAlone.value ? "on" : readChoice();
  // The tab did not survive the last start: it ran out of memory.
  if (chosen === "starting") failed("unable");
  else isOn.value = chosen === "on" || (chosen === null && (toFetch.value === 0 || (found.isDefault && isFit())));
  offer.value = found;
}

/** If nothing else can embed a picture, it need not wait for the offer. */
export function lookAlone(ask: () => Promise<Described | null>): void {
  isAlone.value = true;
  describe = ask;
}

/** Whether a picture has to wait until it is known whether it stays here. */
export const isUndecided = (): boolean =>
  offer.value === undefined && !isAlone.value && isAble() && readChoice() !== "off";

/** Called at the first sign of a picture, so that the model is ready sooner. */
export function expectPicture(): void {
  // Problems are reported when there is a picture.
  if (isOn.value || isAlone.value) load().catch(() => undefined);
}

async function bytesToFetch(found: Described): Promise<number> {
  const missing = await missingBytes(found);
  return missing > 0 ? missing + RUNTIME_BYTES : 0;
}

/** Keeps pictures here from now on: fetches the model if it is not kept. */
export async function turnOn(): Promise<void> {
  failure.value = null;
  isOn.value = true;
  keepChoice("on");
  try {
    await load();
  } catch (error) {
    if (isOn.value) failed(reasonOf(error));
  }
}

/** Sends pictures from now on. What was fetched stays for another time. */
export function turnOff(): void {
  isOn.value = false;
  keepChoice("off");
  forget();
}

// A visitor who leaves while the model starts has not met its limits: a tab that dies of them runs no code.
if (typeof addEventListener === "function") {
  addEventListener("pagehide", () => {
    if (readChoice() === "starting") keepChoice("on");
  });
}

function failed(reason: Reason): void {
  if (isAlone.value) forget();
  else turnOff();
  failure.value = reason;
}

function forget(): void {
  device.stop();
  loading = null;
  received.value = null;
  last = null;
}

/** Whether this picture is embedded here, and not sent. */
export const staysHere = (picture: Picture): boolean =>
  (isOn.value || isAlone.value) && picture.file !== undefined && !sent.has(picture);

/** Lets the server have this one picture. */
export function permit(picture: Picture): void {
  sent.add(picture);
}

/** What a search sends in place of a picture. */
export function lookAt(picture: Picture, box: Box | null, exclude: readonly Box[]): Promise<Seen> {
  const part = JSON.stringify([offer.value?.model, box, exclude]);
  if (last?.picture === picture && last.part === part) return last.seen;
  const seen = ask<Seen>("look", picture, box, exclude);
  const made = { picture, part, seen };
  last = made;
  seen.catch(() => {
    if (last === made) last = null;
  });
  return seen;
}

/** The parts of a picture that one may want to search for. */
export const regionsIn = (picture: Picture): Promise<Region[]> => ask("regions", picture, null, []);

/** Where in a picture the likeness with these shares is: 16 × 16 numbers from 0 to 1. */
export const warmthIn = (picture: Picture, box: Box | null, exclude: readonly Box[], shares: Float32Array) =>
  ask<Float32Array>("warmth", picture, box, exclude, { shares });

async function ask<Result>(
  what: "look" | "regions" | "warmth",
  picture: Picture,
  box: Box | null,
  exclude: readonly Box[],
  more: { shares?: Float32Array } = {},
): Promise<Result> {
  await load();
  const looked: Looked = { file: picture.file as Blob, box, exclude };
  return device.ask<Result>({ do: what, ...looked, ...more } as never);
}

/** Makes the model ready; the same promise for all who wait. */
function load(): Promise<void> {
  loading ??= start().catch((error) => {
    forget();
    throw error;
  });
  return loading;
}

async function start(): Promise<void> {
  received.value = 0;
  const found = await description();
  const bytes = found.model.size_bytes ?? 0;
  modelBytes.value = bytes;
  const loaded = await device.ask<{ isKept: boolean }>({ do: "load", ...found }, (more) => {
    received.value = Math.min((received.value ?? 0) + more, bytes);
    // From here on memory may run out, and end the tab.
    if (received.value === bytes) keepChoice("starting");
  });
  keepChoice("on");
  isKept.value = loaded.isKept;
  received.value = null;
  toFetch.value = await bytesToFetch(found);
}

/** The model as it was kept, or as the server describes it now. */
async function description(): Promise<Described> {
  const known = offer.value;
  const kept = known && !isAlone.value ? await keptModel(known.model).catch(() => null) : null;
  try {
    const found = kept ?? (await describe());
    if (found?.model.allowed)
      return { ...found, model: { ...found.model, closer: known?.closer ?? found.model.closer ?? false } };
  } catch (error) {
    throw new DeviceTrouble("download", String(error));
  }
  throw new DeviceTrouble("unable", "no model");
}

const reasonOf = (error: unknown): Reason =>
  error instanceof DeviceTrouble ? error.reason : error instanceof ChunkTrouble ? "download" : "unable";

function readChoice(): string | null {
  try {
    return localStorage.getItem(KEPT);
  } catch {
    return null;
  }
}

function keepChoice(choice: "on" | "off" | "starting"): void {
  try {
    localStorage.setItem(KEPT, choice);
  } catch {
    // Then the choice lasts as long as the page.
  }
}
