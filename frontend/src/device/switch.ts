import { computed, signal } from "@preact/signals";
import { ChunkTrouble } from "../bytes/trouble";
import type { Box, Region, Seen } from "../endpoint/contract";
import type { Picture } from "../picture/picture";
import { Device, DeviceTrouble, isAble } from "./device";
import type { Looked, Reason } from "./messages";
import { type Described, missingBytes } from "./model";

/** Whether this device looks at pictures, as somebody chose it; `starting` while it is tried. */
const KEPT = "visor-device";
/** The runtime, which the page itself serves, as it lies there. */
const RUNTIME_BYTES = 9_650_000;

/** What the server tells of its model; null where it tells nothing, or forbids it; undefined until it was asked. */
export const described = signal<Described | null | undefined>(undefined);
/** Whether there is no server that a picture could be sent to: then this device looks, or nobody does. */
export const isAlone = signal(false);
/** Whether pictures stay here. */
export const isOn = signal(readChoice() === "on");
/** Bytes that are still to be fetched before the first look. */
export const toFetch = signal(0);
/** Bytes of the model that have come, while they do; null otherwise. */
export const received = signal<number | null>(null);
/** Why the device could not look; the switch is off then. */
export const failure = signal<Reason | null>(null);
/** Whether the model stays for the next visit. */
export const isKept = signal(true);

/** Whether there is something to switch. */
export const canSwitch = computed(() => Boolean(described.value) && isAble() && !isAlone.value);

const device = new Device();
let loading: Promise<void> | null = null;
/** Pictures that somebody had sent although the device looks. */
const sent = new WeakSet<Picture>();
/** The last look: another filter or page takes no new one. */
let last: { picture: Picture; part: string; seen: Promise<Seen> } | null = null;

/** Meets the model that the index is searched with. The device looks where it did so before. */
export async function meetModel(found: Described | null): Promise<void> {
  const isNew = found?.model.fingerprint !== described.value?.model.fingerprint;
  if (isNew) forget();
  described.value = found?.model.allowed ? found : null;
  if (!described.value || !isAble()) {
    isOn.value = false;
    return;
  }
  toFetch.value = await bytesToFetch(described.value);
  const chosen = isAlone.value ? "on" : readChoice();
  // The tab did not live through the last start: its memory did not suffice.
  if (chosen === "starting") failed("unable");
  else isOn.value = chosen === "on" || (chosen === null && toFetch.value === 0);
}

async function bytesToFetch(found: Described): Promise<number> {
  const missing = await missingBytes(found);
  return missing > 0 ? missing + RUNTIME_BYTES : 0;
}

/** Keeps pictures here from now on: fetches the model where it is not kept. */
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

/** Has pictures sent from now on. What was fetched stays, for another time. */
export function turnOff(): void {
  isOn.value = false;
  keepChoice("off");
  forget();
}

// Whoever leaves while the model starts has not met its limits: a tab that dies of them tells nobody.
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

/** Whether this picture is looked at here, and not sent. */
export const staysHere = (picture: Picture): boolean =>
  (isOn.value || isAlone.value) && picture.file !== undefined && !sent.has(picture);

/** Lets the server have this one picture. */
export function permit(picture: Picture): void {
  sent.add(picture);
}

/** What a search says of a picture in its place. */
export function lookAt(picture: Picture, box: Box | null, exclude: readonly Box[]): Promise<Seen> {
  const part = JSON.stringify([described.value?.model.fingerprint, box, exclude]);
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

/** Where in a picture sits what has these shares of a likeness: 16 × 16 numbers from 0 to 1. */
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
  const found = described.value;
  if (!found) throw new DeviceTrouble("unable", "no model");
  received.value = 0;
  const size = found.model.size_bytes ?? 0;
  const loaded = await device.ask<{ isKept: boolean }>({ do: "load", ...found }, (bytes) => {
    received.value = Math.min((received.value ?? 0) + bytes, size);
    // From here on it is memory that may fail, and take the tab with it.
    if (received.value === size) keepChoice("starting");
  });
  keepChoice("on");
  isKept.value = loaded.isKept;
  received.value = null;
  toFetch.value = await bytesToFetch(found);
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
    // The choice lasts as long as the page.
  }
}
