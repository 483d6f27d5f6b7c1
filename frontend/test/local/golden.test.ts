/** What Python answers of the committed exports (`scripts/golden/private_answers.py`), answered here. */
import { readFileSync } from "node:fs";
import type { Server } from "node:http";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Chunks } from "../../src/bytes/chunks";
import type { FacetsAnswer, Match, Place, SearchAnswer } from "../../src/endpoint/contract";
import type { LocalSearch } from "../../src/local/answer";
import { fetchManifest, loadExport } from "../../src/local/format/load";
import { encodeVector, type Sought } from "../../src/local/query";
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
  features?: number[];
  is_across?: boolean;
}

const idsOf = (places: readonly Place[] | undefined) => (places ?? []).map(({ item }) => item);
const idOf = (match: Brief | Match) => ("id" in match ? match.id : match.item.id);
const similaritiesOf = (matches: readonly (Brief | Match)[]) =>
  matches.map((match) => [idOf(match), match.similarity ?? 0] as const);

/** How far similarities and confidences may be off: the matrix is in half precision, and of an item the code is known. */
const NEAR = { similarity: 1e-4, confidence: 1e-3 };
const NEAR_OF_CODES = { similarity: 2e-3, confidence: 0.03 };

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

  test.each(cases.map((one) => [one.name, one] as const))("answers %s", async (_, one) => {
    const { request, answer, pages, more } = one;
    // Across the gap, and where variety is asked for, another number than the similarity orders.
    const isByOther = one.is_across || Boolean(request.variety);
    const near = name === "projected" && JSON.stringify(request).includes('"item"') ? NEAR_OF_CODES : NEAR;
    const found = await local.search(request);
    const shown = [found];
    while (shown.at(-1)?.next && shown.length < pages.length) {
      shown.push(await local.search({ ...request, after: shown.at(-1)?.next ?? null }));
    }
    expect(Boolean(shown.at(-1)?.next)).toBe(more);
    const ids = shown.map(({ matches }) => matches.map(({ item }) => item.id));
    expect(ids.map(({ length }) => length)).toEqual(pages.map(({ length }) => length));
    const mine = new Map(shown.flatMap(({ matches }) => similaritiesOf(matches)));
    const theirs = new Map(similaritiesOf(answer.matches));
    ids.flat().forEach((id, at) => {
      // Neighbours that rounding tells apart may stand the other way round.
      const other = pages.flat()[at] ?? "";
      const apart = Math.abs((mine.get(id) ?? 9) - (mine.get(other) ?? theirs.get(other) ?? -9));
      if (id !== other) expect(apart, `${id} for ${other}`).toBeLessThan(isByOther ? 0.03 : near.similarity);
    });
    const byId = new Map(answer.matches.map((match) => [idOf(match), match]));
    for (const match of found.matches) {
      const wanted = byId.get(match.item.id);
      if (!wanted) continue;
      expect(match.verdict).toBe(wanted.verdict);
      expect(Math.abs(match.confidence - wanted.confidence)).toBeLessThan(near.confidence);
      if (wanted.similarity === null) expect(match.similarity).toBeNull();
      else expect(Math.abs((match.similarity ?? 9) - (wanted.similarity ?? 0))).toBeLessThan(near.similarity);
      if ("id" in wanted) {
        expect(idsOf(match.places)).toEqual(wanted.places);
        expect(idsOf(match.product)).toEqual(wanted.product);
      } else {
        const { similarity, confidence, ...told } = wanted;
        expect(match).toMatchObject(told);
      }
    }
    expect(Math.abs(found.confidence - answer.confidence)).toBeLessThan(near.confidence);
    expect(found.no_confident_match).toBe(answer.no_confident_match);
    expect(found.total ?? null).toBe(answer.total ?? null);
    expect(found.guess?.collection).toBe(answer.guess?.collection);
    expect(Math.abs((found.guess?.probability ?? 0) - (answer.guess?.probability ?? 0))).toBeLessThan(near.confidence);
    expect(found.safety).toEqual(answer.safety);
    expect(found.labels ?? []).toEqual(answer.labels ?? []);
    expect(found.query.blank).toBe(answer.query.blank);
    expect(found.query.item).toBe(answer.query.item);
    expect(found.query.is_across ?? false).toBe(answer.query.is_across ?? false);
    expect(found.notice).toBe(answer.notice);
    expect(found.notices).toEqual(answer.notices);
    if (answer.facets) expect(found.facets).toMatchObject(answer.facets);
  });

  const judged = cases.filter((one) => one.features?.length && one.request.vector && !one.request.filters);
  test.each(judged.map((one) => [one.name, one] as const))("measures %s", async (_, one) => {
    const found = await local.features(one.request);
    Object.entries(found).forEach(([feature, value], at) => {
      expect(Math.abs(value - (one.features?.[at] ?? 9)), feature).toBeLessThan(1e-4);
    });
  });

  test("refuses what servers refuse", async () => {
    const [vector = null] = cases.map((one) => one.request.vector).filter(Boolean);
    const filters = { country: ["DE"] };
    await expect(local.search({ filters, min_confidence: 0.1 })).rejects.toThrow("min_confidence does not go with");
    await expect(local.search({ filters, min_similarity: 0.1 })).rejects.toThrow("min_similarity does not go with");
    await expect(local.search({ filters: { country: [] } })).rejects.toThrow("nothing to search for");
    await expect(local.search({ vector, filters: { date_from: "" } })).rejects.toThrow("Date '' cannot be read");
    expect((await local.search({ vector, item: null })).matches.length).toBeGreaterThan(0);
  });

  test("gives a match to whom its confidence, as it is told, is enough", async () => {
    const [vector = null] = cases.map((one) => one.request.vector).filter(Boolean);
    const { matches } = await local.search({ vector, k: 24, group: false });
    for (const { item, confidence } of matches.slice(0, 6).filter((one) => one.confidence > 0)) {
      const sure = await local.search({ vector, k: 24, group: false, min_confidence: confidence });
      expect(sure.matches.map((match) => match.item.id)).toContain(item.id);
    }
  });

  test("says nothing of prices with a picture that it holds back", async () => {
    const { request } = cases.find((one) => one.name === "seen: unsafe") as Case;
    const asked = { ...request, sort: "price_up", filters: { date_from: "soon" } } as const;
    const { matches, safety, notice } = await local.search(asked);
    expect({ matches, isUnsafe: safety?.unsafe, notice }).toEqual({ matches: [], isUnsafe: true, notice: undefined });
  });

  test.runIf(name === "small")("says that items are lost, however sure matches have to be", async () => {
    const { rows } = local;
    const ids = Array.from({ length: rows.count }, (_, row) => rows.id(row));
    const known = await Promise.all(ids.map((id) => local.item(id).then(Boolean, () => false)));
    const vector = encodeVector(rows.vectors.unit(known.indexOf(false)), null);
    for (const min_confidence of [0, 0.5]) {
      const { matches, notice } = await local.search({ vector, k: 1, min_confidence });
      expect(matches).toEqual([]);
      expect(notice).toContain("the documents of their items are lost");
    }
    expect((await local.search({ vector, min_confidence: 1 })).notice).toBeUndefined();
    const { notices = [] } = await local.search({ vector, k: 1, nearest: 1, sort: "price_up" });
    expect(notices.map(({ code }) => code)).toEqual(["items_lost", "currencies"]);
  });

  test("gives a match whose similarity, as it is told, is enough", async () => {
    const [vector = null] = cases.map((one) => one.request.vector).filter(Boolean);
    const { matches } = await local.search({ vector, k: 24, group: false });
    for (const { item, similarity } of matches.slice(0, 6)) {
      const near = await local.search({ vector, k: 24, group: false, min_similarity: similarity });
      expect(near.matches.map((match) => match.item.id)).toContain(item.id);
    }
  });

  test("undoes no other order by variety", async () => {
    const [vector = null] = cases.map((one) => one.request.vector).filter(Boolean);
    const idsBy = async (variety: number) =>
      (await local.search({ vector, k: 24, sort: "price_down", variety })).matches.map(({ item }) => item.id);
    expect(await idsBy(0.5)).toEqual(await idsBy(0));
  });

  test("goes on with the same picture alone", async () => {
    const vectors = cases.map(({ request }) => request.vector).filter(Boolean) as string[];
    const [one = null, other = null] = vectors;
    const { next } = await local.search({ vector: one, k: 1 });
    expect(next).toBeTruthy();
    expect((await local.search({ vector: one, k: 1, after: next ?? null })).matches).toHaveLength(1);
    const others = local.search({ vector: other, k: 1, after: next ?? null });
    await expect(others).rejects.toThrow("after is not a cursor of this search");
  });
});
