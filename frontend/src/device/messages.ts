import type { Box } from "../endpoint/contract";
import type { Described } from "./model";

/** A picture and what counts of it. */
export interface Looked {
  file: Blob;
  box: Box | null;
  exclude: readonly Box[];
}

/** What the page asks its worker for. */
export type Task =
  | ({ do: "load" } & Described)
  | ({ do: "look" } & Looked)
  | ({ do: "regions" } & Looked)
  | ({ do: "warmth"; shares: Float32Array } & Looked);

/**
 * Why a device cannot look:
 *
 * - undecodable: this browser does not decode the picture's format
 * - little: nearly nothing is left of the picture by the box and the paint
 * - download: a file of the model did not come, or not whole
 * - damaged: it came twice with other bytes than its name promises
 * - unable: no WebAssembly, no memory, or the runtime refused the model
 */
export type Reason = "undecodable" | "little" | "download" | "damaged" | "unable";

/** What the worker says of the task with that number. */
export type Report = { id: number } & (
  | { progress: number }
  | { result: unknown }
  | { reason: Reason; detail: string; size?: [number, number] }
);
