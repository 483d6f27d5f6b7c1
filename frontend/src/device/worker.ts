/**
 * The worker that embeds pictures. It is a classic one, because LiteRT loads its code by `importScripts`. It and the
 * runtime are fetched only when a device embeds.
 */
import { type CompiledModel, Tensor as LiteTensor, loadAndCompile, loadLiteRt, supportsFeature } from "@litertjs/core";
import compatCode from "@litertjs/core/wasm/litert_wasm_compat_internal.js?url";
import compatWasm from "@litertjs/core/wasm/litert_wasm_compat_internal.wasm?packed";
import plainCode from "@litertjs/core/wasm/litert_wasm_internal.js?url";
import plainWasm from "@litertjs/core/wasm/litert_wasm_internal.wasm?packed";
import { inflated } from "../bytes/chunks";
import { ChunkTrouble } from "../bytes/trouble";
import { decode, Undecodable } from "./image/decode";
import { focus, TooLittle } from "./image/focus";
import type { Tensor } from "./look";
import { Looker, type Runner, sideFor } from "./look";
import type { Looked, Report, Task } from "./messages";
import { type Described, type DeviceModel, type ModelFile, modelFiles, readModel } from "./model";

/** The graphics card is trusted if its output for one input has at least this cosine with the processor's. */
const ALIKE_MIN = 0.9995;

let loaded: { model: DeviceModel; looker: Looker } | null = null;
let tasks: Promise<void> = Promise.resolve();

self.addEventListener("message", ({ data }: MessageEvent<{ id: number; task: Task }>) => {
  // One after the other: a network runs one picture at a time.
  tasks = tasks.then(() => answer(data.id, data.task));
});

const say = (report: Report) => self.postMessage(report);

async function answer(id: number, task: Task): Promise<void> {
  try {
    say({ id, result: await done(task, (progress) => say({ id, progress })) });
  } catch (error) {
    say({ id, ...troubleOf(error) });
  }
}

function troubleOf(error: unknown): Omit<Extract<Report, { reason: unknown }>, "id"> {
  const detail = String(error);
  if (error instanceof Undecodable) return { reason: "undecodable", detail };
  if (error instanceof TooLittle) return { reason: "little", detail, size: [error.width, error.height] };
  if (error instanceof ChunkTrouble) return { reason: error.kind === "damaged" ? "damaged" : "download", detail };
  return { reason: "unable", detail };
}

async function done(task: Task, progress: (bytes: number) => void): Promise<unknown> {
  if (task.do === "load") return load(task, progress);
  if (!loaded) throw new Error("nothing is loaded");
  const { model, looker } = loaded;
  // Distinctive parts are searched for in the whole picture.
  const part: Looked = task.do === "regions" ? { ...task, box: null, exclude: [] } : task;
  const decoded = await decode(part.file, sideFor(model, part.box, part.exclude));
  const pixels = focus(decoded.pixels, part.box, part.exclude);
  if (task.do === "look") return looker.look(pixels, decoded);
  return task.do === "regions" ? looker.regions(pixels) : looker.warmth(pixels, task.shares);
}

/** Makes the networks ready; returns whether their files could be kept, and what runs them. */
async function load(described: Described, progress: (bytes: number) => void) {
  if (loaded?.model.fingerprint === described.model.fingerprint) return { isKept: true };
  const runtime = startRuntime();
  // Problems are reported when it is needed.
  runtime.catch(() => undefined);
  const { files, isKept } = await modelFiles(described, undefined, progress);
  await runtime;
  const runners = new Map<string, Runner>();
  const model = readModel(described.model);
  for (const file of model.files) {
    runners.set(file.network, await runnerOf(file, files.get(file.network) as Uint8Array));
  }
  loaded = { model, looker: new Looker(model, runners) };
  return { isKept };
}

let starting: Promise<unknown> | null = null;

function startRuntime(): Promise<unknown> {
  starting ??= (async () => {
    const isNew = await supportsFeature("relaxedSimd");
    const [code, wasm] = isNew ? [plainCode, plainWasm] : [compatCode, compatWasm];
    const wasmBinary = await inflated(await bytesOf(new URL(wasm, self.location.href).href));
    // Emscripten loads its other file from here; its messages are for those who write runtimes.
    Object.assign(self, { Module: { wasmBinary, print: () => undefined, printErr: () => undefined } });
    await loadLiteRt(new URL(code, self.location.href).href);
  })().catch((error) => {
    starting = null;
    throw error;
  });
  return starting;
}

async function bytesOf(url: string): Promise<Uint8Array<ArrayBuffer>> {
  const response = await fetch(url).catch(() => null);
  if (!response?.ok) throw new ChunkTrouble("silent", url);
  return new Uint8Array(await response.arrayBuffer());
}

/** Runs on the graphics card if there is one that computes the same as the processor, and is not slower. */
async function runnerOf(file: ModelFile, bytes: Uint8Array): Promise<Runner> {
  const slow = await loadAndCompile(bytes, { accelerator: "wasm" });
  const fast = await onCard(bytes);
  if (!fast) return runner(slow, file);
  const isBetter = await doesBetter(runner(fast, file), runner(slow, file));
  (isBetter ? slow : fast).delete();
  return runner(isBetter ? fast : slow, file);
}

async function onCard(bytes: Uint8Array): Promise<CompiledModel | null> {
  const { gpu } = navigator as Navigator & { gpu?: { requestAdapter(): Promise<object | null> } };
  try {
    if (!(await gpu?.requestAdapter())) return null;
    const model = await loadAndCompile(bytes, { accelerator: "webgpu", gpuOptions: { precision: "fp32" } });
    if (model.isFullyAccelerated && model.options.accelerator === "webgpu") return model;
    model.delete();
  } catch {
    // No card, or none that can run this network: the processor can.
  }
  return null;
}

/** The first run is compared, the second is timed: a card compiles in its first run. */
async function doesBetter(card: Runner, processor: Runner): Promise<boolean> {
  const size = card.input.reduce((product, edge) => product * edge, 1);
  const given = Float32Array.from({ length: size }, (_, i) => (Math.sin(i / 7) + Math.sin(i / 1009)) / 4 + 0.5);
  const timed = async (one: Runner) => {
    const start = performance.now();
    await one.run(given);
    return performance.now() - start;
  };
  try {
    const [mine, theirs] = [await card.run(given), await processor.run(given)];
    const isAlike = mine.every(({ data }, place) => cosine(data, (theirs[place] as Tensor).data) >= ALIKE_MIN);
    return isAlike && (await timed(card)) <= (await timed(processor));
  } catch {
    return false;
  }
}

function cosine(one: Float32Array, other: Float32Array): number {
  let [dot, mine, theirs] = [0, 0, 0];
  one.forEach((value, i) => {
    const beside = other[i] as number;
    dot += value * beside;
    mine += value * value;
    theirs += beside * beside;
  });
  return dot / Math.sqrt(mine * theirs || 1);
}

function runner(model: CompiledModel, { outputs }: ModelFile): Runner {
  const input = [...(model.getInputDetails()[0]?.shape ?? [])];
  const shapes = model.getOutputDetails().map(({ shape }) => [...shape]);
  return {
    input,
    outputs,
    async run(given) {
      const tensor = new LiteTensor(given, input);
      const results = await model.run(tensor);
      tensor.delete();
      const found: Tensor[] = [];
      for (const [place, result] of results.entries()) {
        // A copy: the memory behind it belongs to the runtime.
        found.push({ shape: shapes[place] as number[], data: Float32Array.from(await result.data()) });
        result.delete();
      }
      return found;
    },
  };
}
