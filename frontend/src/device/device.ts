import type { Looked, Reason, Report, Task } from "./messages";

/** This device could not embed the picture. */
export class DeviceTrouble extends Error {
  constructor(
    readonly reason: Reason,
    detail: string,
    /** Size of what is left of the picture, if that is too little. */
    readonly size?: [number, number],
  ) {
    super(detail);
  }
}

interface Waiting {
  resolve: (result: never) => void;
  reject: (error: Error) => void;
  progress: ((bytes: number) => void) | undefined;
}

/** The worker that embeds, started when it is first needed. If it dies, everything that waits for it fails. */
export class Device {
  private worker: Worker | null = null;
  private waiting = new Map<number, Waiting>();
  private last = 0;

  ask<Result>(task: Task, progress?: (bytes: number) => void): Promise<Result> {
    const worker = this.start();
    const id = ++this.last;
    return new Promise<Result>((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, progress });
      worker.postMessage({ id, task });
    });
  }

  /** Ends the worker, and frees all that it keeps in memory. */
  stop(why: Error = new DeviceTrouble("unable", "stopped")): void {
    this.worker?.terminate();
    this.worker = null;
    const failed = [...this.waiting.values()];
    this.waiting.clear();
    for (const { reject } of failed) reject(why);
  }

  private start(): Worker {
    if (this.worker) return this.worker;
    const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "classic" });
    worker.onmessage = ({ data }: MessageEvent<Report>) => this.hear(data);
    worker.onerror = ({ message }) => this.stop(new DeviceTrouble("unable", message));
    this.worker = worker;
    return worker;
  }

  private hear(report: Report): void {
    const waiting = this.waiting.get(report.id);
    if (!waiting) return;
    if ("progress" in report) {
      waiting.progress?.(report.progress);
      return;
    }
    this.waiting.delete(report.id);
    if ("reason" in report) waiting.reject(new DeviceTrouble(report.reason, report.detail, report.size));
    else waiting.resolve(report.result as never);
  }
}

export type { Looked };
