import { expect, it, vi } from "vitest";
import type { Visit } from "../src/address/history";
import { DEFAULT_OPTIONS } from "../src/address/link";

it("keeps the pages before one that is changed again and again", async () => {
  const bar = { state: null as unknown };
  vi.stubGlobal("location", { hash: "", search: "", pathname: "/" });
  vi.stubGlobal("scrollY", 0);
  const change = (state: unknown) => Object.assign(bar, { state });
  vi.stubGlobal("history", Object.assign(bar, { pushState: change, replaceState: change }));
  const { recall, remember, step } = await import("../src/address/history");
  const visit = (k: number) =>
    ({
      query: { kind: "words" },
      options: { ...DEFAULT_OPTIONS, k },
      answer: { index: {}, query: {} },
    }) as unknown as Visit;
  remember(visit(1));
  const first = bar.state;
  step();
  for (let time = 0; time < 50; time++) remember(visit(2));
  expect(recall()?.options.k).toBe(2);
  bar.state = first;
  expect(recall()?.options.k).toBe(1);
});
