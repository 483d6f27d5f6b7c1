import { afterEach, expect, it, vi } from "vitest";
import { Api, Failure, filterParameters } from "../src/endpoint/api";

afterEach(() => vi.unstubAllGlobals());

const never = new AbortController().signal;

function answering(response: Response | Error) {
  const asked = vi.fn(async (_address: string, _init?: RequestInit) => {
    if (response instanceof Error) throw response;
    return response;
  });
  vi.stubGlobal("fetch", asked);
  vi.stubGlobal("navigator", { onLine: true, language: "en" });
  return asked;
}

const failure = (promise: Promise<unknown>) => promise.then(() => null).catch((error: unknown) => error as Failure);

it("sends a picture as a form with the request beside it", async () => {
  const asked = answering(Response.json({ matches: [] }));
  await new Api("https://e.example").search({ k: 3 }, new Blob(["x"], { type: "image/jpeg" }), never);
  const [address, init] = asked.mock.calls[0] ?? [];
  const form = init?.body as FormData;
  expect(address).toBe("https://e.example/v1/search");
  expect(form.get("request")).toBe('{"k":3}');
  expect((form.get("image") as File).type).toBe("image/jpeg");
});

it("sends anything else as JSON", async () => {
  const asked = answering(Response.json({ matches: [] }));
  await new Api("").search({ item: "a" }, null, never);
  expect(asked.mock.calls[0]?.[0]).toBe("/v1/search");
  expect(asked.mock.calls[0]?.[1]?.body).toBe('{"item":"a"}');
});

it("sends the owner's key to the server of this page only", async () => {
  for (const [endpoint, sent] of [
    ["", "secret"],
    ["https://e.example", null],
  ] as const) {
    const asked = answering(Response.json({}));
    await new Api(endpoint, "secret").stats();
    expect(new Headers(asked.mock.calls[0]?.[1]?.headers ?? {}).get("X-Visor-Key")).toBe(sent);
  }
});

it("passes a problem document on as it is", async () => {
  const problem = {
    type: "urn:visor:bad_request",
    title: "Bad request",
    status: 400,
    detail: "d",
    found: "f",
    valid: "v",
  };
  answering(Response.json(problem, { status: 400 }));
  expect((await failure(new Api("").stats()))?.problem).toEqual(problem);
});

it.each([
  [new Response("<h1>502</h1>", { status: 502 }), 502],
  [new Response("<h1>Welcome</h1>", { status: 200 }), 200],
])("says so when something else answers", async (response, status) => {
  answering(response);
  const error = await failure(new Api("").stats());
  expect(error).toBeInstanceOf(Failure);
  expect(error?.problem.status).toBe(status);
  expect(error?.problem.remedy).toContain("config.json");
});

it.each([
  [429, "30", 30],
  [503, null, undefined],
  [504, null, undefined],
])("takes a host that has no room for now (%i) for no stranger", async (status, after, wait) => {
  answering(new Response("Rate exceeded.", { status, headers: after ? { "Retry-After": after } : {} }));
  const problem = (await failure(new Api("").stats()))?.problem;
  expect(problem?.title).toBe("The search does not work for now");
  expect(problem?.found).toContain(`status ${status}`);
  expect(problem?.remedy).not.toContain("config.json");
  expect(problem?.retryAfterS).toBe(wait);
});

it("says so when the connection breaks in the middle of an answer", async () => {
  const broken = new ReadableStream({
    start(stream) {
      stream.enqueue(new TextEncoder().encode('{"matches": ['));
      stream.error(new TypeError("network error"));
    },
  });
  answering(new Response(broken));
  const error = await failure(new Api("https://e.example").stats());
  expect(error?.problem.title).toBe("The search does not answer");
  expect(error?.problem.status).toBe(0);
});

it("names the endpoint that does not answer", async () => {
  answering(new TypeError("Failed to fetch"));
  const error = await failure(new Api("https://e.example").stats());
  expect(error?.problem).toMatchObject({ status: 0, found: "https://e.example cannot be reached." });
});

it("writes conditions on attributes as the facets endpoint reads them", () => {
  const parameters = filterParameters({ attributes: { colour: { any: ["red"] } } });
  expect(parameters.get("attributes")).toBe('{"colour":{"any":["red"]}}');
});

it("writes filters as the facets endpoint reads them", () => {
  const filters = { collection: ["a", "b c"], price: { min: 1 }, date_to: "2026-01-01", country: [] };
  expect(filterParameters(filters).toString()).toBe("collection=a&collection=b+c&price_min=1&date_to=2026-01-01");
});
