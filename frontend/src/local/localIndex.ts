/** An export as the page's backend: it asks a worker, and reports failures in the visitor's language. */
import { signal } from "@preact/signals";
import { Failure, type Trouble } from "../endpoint/api";
import type { Backend } from "../endpoint/backend";
import type { Filters, SearchRequest } from "../endpoint/contract";
import { type Key, t } from "../words/messages";
import type { Questions, Told, Trouble as WorkerTrouble } from "./messages";
import type { Sought } from "./query";

/** Bytes of the catalogue that have arrived, of all that the first search needs; null when it is here. */
export const loading = signal<{ received: number; total: number } | null>(null);
/** Whether the catalogue stays for the next visit; null until that is known. */
export const isKept = signal<boolean | null>(null);

type Pending = { resolve: (answer: never) => void; reject: (error: unknown) => void };

export class LocalIndex implements Backend {
  private readonly worker: Worker;
  private readonly pending = new Map<number, Pending>();
  private asked = 0;

  /** @param base URL of the export's files. */
  constructor(private readonly base: string) {
    this.worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module", name: base });
    this.worker.addEventListener("message", ({ data }: MessageEvent<Told>) => this.hear(data));
    this.worker.addEventListener("error", (event) => {
      // It could not start, or ran out of memory: nothing answers any more.
      event.preventDefault();
      for (const { reject } of this.pending.values()) reject(new Failure(troubleOf("memory", "")));
      this.pending.clear();
    });
  }

  async search(request: SearchRequest, picture: Blob | null, signal: AbortSignal) {
    if (picture) throw new Failure(troubleOf("picture", ""));
    if (request.url) throw new Failure(troubleOf("address", request.url));
    if (request.text) throw new Failure(troubleOf("words", request.text));
    const answer = await this.ask("search", request as Sought);
    signal.throwIfAborted();
    return answer;
  }

  async searches(searches: SearchRequest[]) {
    const outcomes = searches.map(async (request) => {
      try {
        return { answer: await this.ask("search", request as Sought) };
      } catch (error) {
        if (!(error instanceof Failure)) throw error;
        return { problem: error.problem };
      }
    });
    return { outcomes: await Promise.all(outcomes) };
  }

  facets(filters: Filters) {
    return this.ask("facets", filters);
  }

  examples(limit: number) {
    return this.ask("examples", limit);
  }

  item(id: string) {
    return this.ask("item", id);
  }

  stats() {
    return this.ask("stats", null);
  }

  /** While the model is downloaded or a request waits, nothing is prefetched. */
  hold(isHeld: boolean): void {
    this.ask("hold", isHeld).catch(() => undefined);
  }

  async model() {
    const model = await this.ask("model", null);
    return model && { model, base: new URL("model.json", this.base).href };
  }

  /** There is no index of words. */
  async suggest() {
    return { words: [] };
  }

  // The methods below need the pictures themselves, or a server that keeps feedback. The page does not offer them: an
  // export has no such capability.

  compare(): Promise<never> {
    return Promise.reject(new Failure(troubleOf("server", "")));
  }

  explain(): Promise<never> {
    return Promise.reject(new Failure(troubleOf("server", "")));
  }

  feedback(): Promise<never> {
    return Promise.reject(new Failure(troubleOf("server", "")));
  }

  private ask<Name extends keyof Questions>(
    name: Name,
    asked: Questions[Name]["asked"],
  ): Promise<Questions[Name]["answer"]> {
    this.asked += 1;
    const id = this.asked;
    return new Promise((resolve, reject) => {
      this.pending.set(id, { resolve, reject });
      this.worker.postMessage({ id, name, asked });
    });
  }

  private hear(told: Told): void {
    if ("progress" in told) {
      const [received, total] = told.progress;
      loading.value = received < total ? { received, total } : null;
      return;
    }
    if ("changed" in told) {
      isKept.value = told.isKept;
      return;
    }
    const waiting = this.pending.get(told.id);
    this.pending.delete(told.id);
    if ("answer" in told) waiting?.resolve(told.answer as never);
    else {
      loading.value = null;
      waiting?.reject(new Failure(readTrouble(told.trouble)));
    }
  }
}

function readTrouble(trouble: WorkerTrouble): Trouble {
  if (trouble.kind === "refusal") {
    const { type, found, valid, remedy } = trouble;
    return { type: `urn:visor:${type}`, title: t("problem.other"), status: 400, detail: "", found, valid, remedy };
  }
  if (trouble.kind === "bug") {
    const isMemory = /memory|allocation|RangeError/i.test(trouble.found);
    return troubleOf(isMemory ? "memory" : "bug", trouble.found);
  }
  const file = trouble.file.replace(/^.*\//, "");
  return troubleOf(trouble.kind, trouble.status ? `${file} (${trouble.status})` : file);
}

type Kind = Exclude<WorkerTrouble["kind"], "refusal"> | "memory" | "picture" | "address" | "words" | "server";

/** What the page says about each kind, and whether another try may succeed. */
const SAID: Readonly<Record<Kind, { title: Key; found?: Key; remedy?: Key; mayPass?: true }>> = {
  damaged: { title: "local.damaged", found: "local.damaged.found", remedy: "local.owner", mayPass: true },
  missing: { title: "local.missing", found: "local.missing.found", remedy: "local.owner", mayPass: true },
  refused: { title: "local.refused", found: "local.refused.found", remedy: "local.owner", mayPass: true },
  silent: { title: "local.silent", found: "local.silent.found", remedy: "problem.moment", mayPass: true },
  newer: { title: "local.newer", found: "local.newer.found", remedy: "local.newer.remedy" },
  memory: { title: "local.memory", found: "local.memory.found", remedy: "local.memory.remedy" },
  picture: { title: "local.picture", found: "local.picture.found", remedy: "local.picture.remedy" },
  address: { title: "local.address", found: "local.address.found", remedy: "local.address.remedy" },
  words: { title: "local.words", found: "local.words.found", remedy: "local.words.remedy" },
  server: { title: "local.server" },
  bug: { title: "problem.bug", remedy: "problem.bug.remedy" },
};

function troubleOf(kind: Kind, what: string): Trouble {
  const { title, found, remedy, mayPass } = SAID[kind];
  const isAway = kind === "silent" && !navigator.onLine;
  return {
    // Its kind decides whether the page offers another try.
    type: mayPass ? "about:blank" : `urn:visor:local_${kind}`,
    title: t(title),
    status: 0,
    detail: "",
    found: found ? t(found, { what }) : what,
    remedy: isAway ? t("problem.offline") : remedy ? t(remedy) : "",
    isOurs: true,
  };
}
