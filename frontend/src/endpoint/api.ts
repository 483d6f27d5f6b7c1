import { LISTS } from "../filters";
import { t } from "../words/messages";
import type { Backend } from "./backend";
import type {
  CompareAnswer,
  CompareRequest,
  DeviceModel,
  ExplainAnswer,
  FacetsAnswer,
  FeedbackRequest,
  Filters,
  ItemAnswer,
  ItemsAnswer,
  Problem,
  SearchAnswer,
  SearchesAnswer,
  SearchRequest,
  StatsAnswer,
  SuggestAnswer,
} from "./contract";

/** Long enough for a cold start on a slow connection; nobody waits longer. */
const TIMEOUT_MS = 60_000;

/** The endpoint answered with a problem document, with something else, or not at all (`status` 0). */
export class Failure extends Error {
  constructor(readonly problem: Trouble) {
    super(problem.detail);
  }
}

/** A problem document, and after how long to try again, if the server says so. */
export interface Trouble extends Problem {
  retryAfterS?: number;
  /** Whether this page wrote it itself, in the visitor's language. */
  isOurs?: boolean;
}

/** The search function at a URL. */
export class Api implements Backend {
  /** The owner's key is sent only to the server of this page. */
  constructor(
    readonly endpoint: string,
    private readonly key: string = "",
  ) {}

  search(request: SearchRequest, picture: Blob | null, signal: AbortSignal): Promise<SearchAnswer> {
    return this.ask("/v1/search", { method: "POST", ...body(request, picture) }, signal);
  }

  searches(searches: SearchRequest[], signal?: AbortSignal): Promise<SearchesAnswer> {
    return this.ask("/v1/searches", { method: "POST", ...body({ searches }, null) }, signal);
  }

  compare(request: CompareRequest, signal: AbortSignal): Promise<CompareAnswer> {
    return this.ask("/v1/compare", { method: "POST", ...body(request, null) }, signal);
  }

  suggest(text: string, signal: AbortSignal): Promise<SuggestAnswer> {
    return this.ask(`/v1/suggest?${new URLSearchParams({ text })}`, {}, signal);
  }

  explain(request: SearchRequest, picture: Blob | null, match: string, signal: AbortSignal): Promise<ExplainAnswer> {
    return this.ask("/v1/explain", { method: "POST", ...body({ ...request, match }, picture) }, signal);
  }

  async feedback(item: string | null, query: { item: string } | { vector: string }): Promise<void> {
    const asked = "item" in query ? { query_item: query.item } : { query_vector: query.vector };
    const said: FeedbackRequest = item ? { item, ...asked } : { ...asked, verdict: "harmless" };
    await this.ask("/v1/feedback", { method: "POST", keepalive: true, ...body(said, null) });
  }

  facets(filters: Filters, text = ""): Promise<FacetsAnswer> {
    const query = filterParameters(filters);
    if (text) query.set("text", text);
    return this.ask(`/v1/facets${query.size ? `?${query}` : ""}`);
  }

  examples(limit: number): Promise<ItemsAnswer> {
    return this.ask(`/v1/items?limit=${limit}`);
  }

  item(id: string): Promise<ItemAnswer> {
    return this.ask(`/v1/items/${encodeURIComponent(id)}`);
  }

  async model(): Promise<{ model: DeviceModel; base: string } | null> {
    const path = "/v1/model";
    try {
      return { model: await this.ask<DeviceModel>(path), base: new URL(this.endpoint + path, document.baseURI).href };
    } catch (error) {
      if (error instanceof Failure && error.problem.status === 404) return null;
      throw error;
    }
  }

  stats(): Promise<StatsAnswer> {
    return this.ask("/v1/stats");
  }

  private async ask<T>(path: string, init: RequestInit = {}, signal?: AbortSignal): Promise<T> {
    const timeout = AbortSignal.timeout(TIMEOUT_MS);
    let response: Response;
    try {
      response = await fetch(this.endpoint + path, {
        ...init,
        headers: { ...init.headers, ...(this.key && !this.endpoint && { "X-Visor-Key": this.key }) },
        credentials: "omit",
        signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Failure(this.silence(timeout.aborted));
    }
    if (!response.ok) throw new Failure(await readProblem(response));
    try {
      return (await response.json()) as T;
    } catch (error) {
      if (signal?.aborted) throw error;
      // Anything else than wrong signs is a connection that broke, or took too long, in the middle of the answer.
      throw new Failure(error instanceof SyntaxError ? unreadable(response) : this.silence(timeout.aborted));
    }
  }

  private silence(late: boolean): Trouble {
    const endpoint = this.endpoint || t("problem.endpoint");
    return {
      type: "about:blank",
      title: t(late ? "problem.late" : "problem.silent"),
      status: 0,
      detail: "",
      found: t(late ? "problem.late.found" : "problem.silent.found", { endpoint }),
      remedy: t(navigator.onLine ? "problem.moment" : "problem.offline"),
      isOurs: true,
    };
  }
}

/** Filters in the form that `GET /v1/facets` accepts. */
export function filterParameters(filters: Filters): URLSearchParams {
  const parameters = new URLSearchParams();
  const { price, date_from, date_to, attributes } = filters;
  for (const name of LISTS) for (const value of filters[name] ?? []) parameters.append(name, value);
  if (typeof price?.min === "number") parameters.set("price_min", String(price.min));
  if (typeof price?.max === "number") parameters.set("price_max", String(price.max));
  if (date_from) parameters.set("date_from", date_from);
  if (date_to) parameters.set("date_to", date_to);
  if (attributes) parameters.set("attributes", JSON.stringify(attributes));
  return parameters;
}

function body(request: object, picture: Blob | null): RequestInit {
  const json = JSON.stringify(request);
  if (!picture) return { body: json, headers: { "Content-Type": "application/json" } };
  const form = new FormData();
  form.append("image", picture, "picture");
  form.append("request", json);
  return { body: form };
}

async function readProblem(response: Response): Promise<Trouble> {
  const wait = Number(response.headers.get("Retry-After"));
  const later = wait > 0 ? { retryAfterS: wait } : {};
  try {
    const found = (await response.json()) as Partial<Problem>;
    if (typeof found.title === "string") {
      return { type: "about:blank", status: response.status, detail: "", ...found, title: found.title, ...later };
    }
  } catch {
    // Not a problem document: a proxy or another server answered.
  }
  return { ...unreadable(response), ...later };
}

/** Too many requests, unavailable, too slow: what a host says in place of a server that it has no room for. */
const FOR_NOW = [429, 503, 504];

function unreadable({ url, status }: Response): Trouble {
  const host = new URL(url || "about:blank").host || t("problem.server");
  const found = t("problem.stranger.found", { host, status: String(status) });
  const told = { type: "about:blank", status, detail: "", found, isOurs: true };
  if (FOR_NOW.includes(status)) {
    return { ...told, title: t("problem.store_unavailable"), remedy: t("problem.moment") };
  }
  return {
    ...told,
    title: t("problem.stranger"),
    valid: t("problem.stranger.valid"),
    remedy: t("problem.stranger.remedy"),
  };
}
