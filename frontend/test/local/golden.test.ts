/** What Python answers of the committed exports, answered here. */
import { readFileSync } from "node:fs";
import type { Server } from "node:http";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Chunks } from "../../src/bytes/chunks";
import type { FacetsAnswer, Match, Place, SearchAnswer } from "../../src/endpoint/contract";
import type { LocalSearch } from "../../src/local/answer";
import { fetchManifest, loadExport } from "../../src/local/load";
import type { Sought } from "../../src/local/query";
import { GOLDEN, serve } from "./site";

interface Brief extends Pick<Match, "verdict" | "confidence"> {
  id: string;
  similarity: number | null;
  places: string[];
  product: string[];
}

interface Case {
  name: string;
  request: Sought;
  answer: Omit<SearchAnswer, "matches"> & { matches: (Brief | Match)[]; facets?: FacetsAnswer };
  pages: string[][];
  more: boolean;
}

const idsOf = (places: readonly Place[] | undefined) => (places ?? []).map(({ item }) => item);
const idOf = (match: Brief | Match) => ("id" in match ? match.id : match.item.id);

describe.each(["small", "projected", "full", "across"])("the index %s", (name) => {
  let local: LocalSearch;
  let server: Server;
  const cases = JSON.parse(readFileSync(new URL(`search-${name}.json`, GOLDEN), "utf8")) as Case[];

  beforeAll(async () => {
    const site = await serve(new URL(`${name}/`, GOLDEN));
    server = site.server;
    local = await loadExport(await fetchManifest(site.base), site.base, new Chunks("test"), "whole");
  });
  afterAll(() => server.close());

  test.each(cases.map((one) => [one.name, one] as const))("answers %s", async (_, { request, answer, pages, more }) => {
    const found = await local.search(request);
    expect(found.matches.map(({ item }) => item.id)).toEqual(answer.matches.map(idOf));
    found.matches.forEach((match, at) => {
      const wanted = answer.matches[at] as Brief | Match;
      expect(match.verdict).toBe(wanted.verdict);
      expect(match.confidence).toBeCloseTo(wanted.confidence, 3);
      if (wanted.similarity === null) expect(match.similarity).toBeNull();
      else expect(Math.abs((match.similarity ?? 9) - (wanted.similarity ?? 0))).toBeLessThan(1e-4);
      if (!("id" in wanted)) {
        expect(withoutDefaults(match)).toMatchObject(withoutNumbers(wanted));
        return;
      }
      expect(idsOf(match.places)).toEqual(wanted.places);
      expect(idsOf(match.product)).toEqual(wanted.product);
    });
    expect(Math.abs(found.confidence - answer.confidence)).toBeLessThan(1e-3);
    expect(found.no_confident_match).toBe(answer.no_confident_match);
    expect(found.total ?? null).toBe(answer.total ?? null);
    expect(found.guess?.collection).toBe(answer.guess?.collection);
    expect(found.guess?.probability ?? 0).toBeCloseTo(answer.guess?.probability ?? 0, 2);
    expect(found.safety).toEqual(answer.safety);
    expect(found.labels ?? []).toEqual(answer.labels ?? []);
    expect(found.query.blank).toBe(answer.query.blank);
    expect(found.query.item).toBe(answer.query.item);
    expect(found.notice).toBe(answer.notice);
    if (answer.facets) expect(found.facets).toMatchObject(answer.facets);
    const ids = [found.matches.map(({ item }) => item.id)];
    let after = found.next ?? null;
    while (after && ids.length < pages.length) {
      const page = await local.search({ ...request, after });
      ids.push(page.matches.map(({ item }) => item.id));
      after = page.next ?? null;
    }
    expect(ids).toEqual(pages);
    expect(after !== null).toBe(more);
  });
});

const withoutDefaults = (match: Match) => match;

function withoutNumbers({ similarity, confidence, ...rest }: Match): Partial<Match> {
  return rest;
}
