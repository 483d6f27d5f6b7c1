import type { Box } from "../endpoint/contract";
import type { Described } from "./model";

/** A picture and the part of it that counts. */
export interface Looked {
  file: Blob;
  box: Box | null;
  exclude: readonly Box[];
}

/** The page's requests to its worker. */
export type Task =
  | ({ do: "load" } & Described)
  | ({ do: "look" } & Looked)
  | ({ do: "regions" } & Looked)
  | ({ do: "warmth"; shares: Float32Array } & Looked);

/**
 * Why a device cannot embed a picture:
 *
 * - undecodable: this browser does not decode the picture's format
 * - little: the box and the paint leave almost nothing of the picture
 * - download: a file of the model did not arrive, or not completely
 * - damaged: it arrived twice with other bytes than its name promises
 * - unable: no WebAssembly, no memory, or the runtime refused the model
 */
export type Reason = "undecodable" | "little" | "download" | "damaged" | "unable";

/** What the worker reports about the task with that number. */
export type Report = { id: number } & (
  | { progress: number }
  | { result: unknown }
  | { reason: Reason; detail: string; size?: [number, number] }
);
