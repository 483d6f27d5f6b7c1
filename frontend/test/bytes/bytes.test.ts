import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fromBase64, toBase64 } from "../../src/bytes/base64";
import { type Chunk, Chunks, digestOf } from "../../src/bytes/chunks";
import { Container } from "../../src/bytes/container";
import { fromHalves, toHalves } from "../../src/bytes/float16";
import { ChunkTrouble } from "../../src/bytes/trouble";

describe("halves", () => {
  test.each([
    [0x0000, 0],
    [0x3c00, 1],
    [0xc000, -2],
    [0x7bff, 65504],
    [0x0001, 2 ** -24],
    [0x03ff, 1023 * 2 ** -24],
    [0x0400, 2 ** -14],
    [0x7c00, Number.POSITIVE_INFINITY],
  ])("%i is %d both ways", (half, number) => {
    expect(fromHalves(new Uint16Array([half]))[0]).toBe(number);
    expect(toHalves([number])[0]).toBe(half);
  });

  test.each([
    [1 + 2 ** -11, 0x3c00],
    [1 + 3 * 2 ** -11, 0x3c02],
    [65520, 0x7c00],
    [2 ** -25, 0x0000],
    [3 * 2 ** -25, 0x0002],
    [Number.NaN, 0x7e00],
  ])("%d is rounded to the even neighbour", (number, half) => {
    expect(toHalves([number])[0]).toBe(half);
  });

  test("every half survives", () => {
    const all = Uint16Array.from({ length: 0x10000 }, (_, half) => half).filter((half) => (half & 0x7c00) !== 0x7c00);
    expect(toHalves(fromHalves(all))).toEqual(all);
  });
});

test("base64 is read in both alphabets, with padding or without", () => {
  const bytes = Uint8Array.from({ length: 100_001 }, (_, at) => (at * 7) % 256);
  const text = toBase64(bytes);
  expect(fromBase64(text)).toEqual(bytes);
  expect(fromBase64(text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", ""))).toEqual(bytes);
});

describe("a container", () => {
  test("of a later version, of another kind or cut is refused", () => {
    const head = (version: number, kind: string) => {
      const text = JSON.stringify({ __metadata__: { kind, format: String(version), about: "{}", checksums: "{}" } });
      const bytes = new Uint8Array(8 + text.length);
      new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
      bytes.set(new TextEncoder().encode(text), 8);
      return bytes;
    };
    const kindOf = (bytes: Uint8Array<ArrayBuffer>) => {
      try {
        Container.open("a.vsr", bytes, "segment");
        return "none";
      } catch (error) {
        return error instanceof ChunkTrouble ? error.kind : "other";
      }
    };
    expect(kindOf(head(1, "segment"))).toBe("none");
    expect(kindOf(head(2, "segment"))).toBe("newer");
    expect(kindOf(head(1, "shard"))).toBe("damaged");
    expect(kindOf(head(1, "segment").subarray(0, 20))).toBe("damaged");
    expect(kindOf(new Uint8Array(3))).toBe("damaged");
  });
});

describe("chunks come from a server", () => {
  const text = new TextEncoder().encode("So many bytes. ".repeat(999));
  const packed = new Uint8Array(gzipSync(text));
  const answers: Record<string, (asked: number) => Uint8Array | number> = {
    "/plain": () => text,
    "/packed": () => packed,
    "/flipped-once": (asked) => (asked === 0 ? flipped(text) : text),
    "/flipped": () => flipped(text),
    "/cut": () => text.subarray(0, 999),
    "/packed-cut": () => packed.subarray(0, 40),
    "/missing": () => 404,
    "/busy": () => 503,
  };
  const asked: Record<string, number> = {};
  const server = createServer((request, response) => {
    const path = request.url ?? "";
    const answer = answers[path]?.(asked[path] ?? 0) ?? 404;
    asked[path] = (asked[path] ?? 0) + 1;
    if (path === "/torn") {
      response.writeHead(200, { "Content-Length": String(text.length) });
      response.write(text.subarray(0, 99), () => response.destroy());
    } else if (typeof answer === "number") response.writeHead(answer).end();
    else response.end(answer);
  });
  let at = "";
  let chunk: (path: string) => Chunk;

  beforeAll(async () => {
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    at = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const [plain, small] = await Promise.all([digestOf(text), digestOf(packed)]);
    chunk = (path) => ({ url: at + path, sha256: path.startsWith("/packed") ? small.slice(0, 16) : plain });
  });
  afterAll(() => server.close());

  test.each([
    ["/plain", 1],
    ["/packed", 1],
    ["/flipped-once", 2],
  ])("%s is read whole after %i requests", async (path, times) => {
    expect(await new Chunks("test").get(chunk(path))).toEqual(text);
    expect(asked[path]).toBe(times);
  });

  test.each([
    ["/flipped", "damaged", 2],
    ["/cut", "damaged", 2],
    ["/packed-cut", "damaged", 2],
    ["/missing", "missing", 1],
    ["/busy", "refused", 1],
    ["/torn", "silent", 2],
  ])("%s is %s after %i requests", async (path, kind, times) => {
    const trouble = await new Chunks("test").get(chunk(path)).catch((error: unknown) => error);
    expect(trouble).toBeInstanceOf(ChunkTrouble);
    expect((trouble as ChunkTrouble).kind).toBe(kind);
    expect(asked[path]).toBe(times);
  });

  test("several come in their order, and what comes is counted", async () => {
    let received = 0;
    const wanted = ["/plain", "/packed", "/plain"].map(chunk);
    const found = await new Chunks("test").all(wanted, undefined, (bytes) => {
      received += bytes;
    });
    expect(found).toEqual([text, text, text]);
    expect(received).toBe(2 * text.length + packed.length);
  });
});

function flipped(bytes: Uint8Array): Uint8Array {
  const other = bytes.slice();
  other[500] = (other[500] ?? 0) ^ 1;
  return other;
}
