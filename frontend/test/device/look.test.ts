import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { fromBase64, toBase64 } from "../../src/bytes/base64";
import { heat, tellingParts } from "../../src/device/heat";
import { colourSignature } from "../../src/device/image/colours";
import { emptiness } from "../../src/device/image/content";
import { focus, TooLittle } from "../../src/device/image/focus";
import { perceptualHash } from "../../src/device/image/hash";
import { cropped, type Pixels, scaledDown } from "../../src/device/image/pixels";
import { Looker, type Runner } from "../../src/device/look";
import { type Part, type Preprocessing, readModel, type View } from "../../src/device/model";
import { joinedVector, packLook, prepare, readHalves, vectorBytes, viewOf } from "../../src/device/vector";
import type { Box, DeviceModel } from "../../src/endpoint/contract";

interface Golden {
  sizes: [number, "bilinear" | "bicubic", View][];
  focuses: Record<string, { box: Box | null; exclude: Box[] }>;
  pictures: Record<
    string,
    Record<string, unknown> & { inputs: string[]; hash: string; colours: string; middle: string }
  >;
  normalised: number[];
  vector: string;
  heat: number[];
  regions: Box[];
}

// What Python sees: scripts/golden/look.py.
const golden = JSON.parse(
  readFileSync(new URL("../../../tests/golden/private/look.json", import.meta.url), "utf8"),
) as Golden;

const floor = Math.floor;
const PICTURES: Record<string, [number, number, (x: number, y: number, c: number) => number]> = {
  waves: [640, 427, (x, y, c) => floor((x * x) / 150) + floor((y * x) / 90) + floor((y * y * (c + 1)) / 400)],
  tall: [90, 331, (x, y, c) => x * (c + 2) * 3 + y * 2],
  small: [23, 17, (x, y, c) => x * 31 * (c + 1) + y * 17 + x * y],
  wide: [1500, 999, (x, y, c) => floor(x / 30) * 37 + floor(y / 25) * (53 + c * 19)],
  disc: [300, 300, (x, y, c) => ((x - 150) ** 2 + (y - 150) ** 2 < 9000 ? 40 + 60 * c : 255)],
  flags: [320, 240, (x, y, c) => floor(x / 64) * 91 * (c + 1) + floor(y / 48) * 57],
  noise: [200, 200, (x, y, c) => floor((((x * 1103 + y * 7919 + c * 13 + x * y * 31) ** 2 % 65536) * 40503) / 64)],
  cut: [240, 240, (x, y, c) => (y < 110 ? floor((x * y) / 40) + x * (c + 1) : 128)],
  paper: [400, 300, (x, y, c) => 250 - floor((x + y) / 200) + 0 * c],
};

function picture(name: string): Pixels {
  const [width, height, level] = PICTURES[name] as (typeof PICTURES)[string];
  const data = new Uint8Array(width * height * 3);
  for (let i = 0; i < data.length; i++) {
    const place = floor(i / 3);
    data[i] = level(place % width, floor(place / width), i % 3) % 256;
  }
  return { data, width, height, step: 3 };
}

const values = (count: number, seed: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => ((i * 7919 + seed * 104729) % 10007) / 8005.6 - 0.25);

const network = (power: number) => ({ power, signed: false }) as Part["network"];

const how = (
  size: number,
  resample: "bilinear" | "bicubic",
  mean = [0, 0, 0],
  deviation = [1, 1, 1],
): Preprocessing => ({
  size,
  resample,
  mean,
  deviation,
  views: ["whole"],
  order: "rgb",
});

const digest = ({ data, width, height }: Pixels) => [width, height, createHash("sha256").update(data).digest("hex")];

const furthest = (one: ArrayLike<number>, other: ArrayLike<number>): number => {
  expect(one.length).toBe(other.length);
  return Math.max(...Array.from(one, (value, i) => Math.abs(value - (other[i] as number))));
};

describe.each(Object.keys(golden.pictures))("of the picture %s the browser sees what Python sees", (name) => {
  const pixels = picture(name);
  const wanted = golden.pictures[name] as Golden["pictures"][string];

  it("as a network's input", () => {
    for (const [i, [size, resample, view]] of golden.sizes.entries()) {
      const input = prepare(pixels, how(size, resample), viewOf(pixels, view, 0.875)).map((value) => value * 255);
      expect(furthest(input, fromBase64(wanted.inputs[i] as string))).toBeLessThan(0.01);
    }
  });

  it("by its hash, its colours, and whether there is anything in it", () => {
    expect(toBase64(perceptualHash(pixels))).toBe(wanted.hash);
    expect(furthest(colourSignature(pixels), fromBase64(wanted.colours))).toBeLessThanOrEqual(1);
    const middle = colourSignature(pixels, viewOf(pixels, 0.4, 0.875));
    expect(furthest(middle, fromBase64(wanted.middle))).toBeLessThanOrEqual(1);
    expect(emptiness(pixels)).toBe(wanted["blank"]);
  });

  it("in its parts, and scaled down in bands", () => {
    for (const [part, { box, exclude }] of Object.entries(golden.focuses)) {
      expect(digest(focus(pixels, box, exclude)), part).toEqual(wanted[part]);
    }
    const band = (top: number, bottom: number) => cropped(pixels, [0, top, pixels.width, bottom]);
    expect(digest(scaledDown(pixels.width, pixels.height, 9, band))).toEqual(wanted["ninth"]);
  });
});

it("normalises levels, also in another order of channels and axes", () => {
  const pixels = picture("small");
  const [mean, deviation] = [
    [0.485, 0.456, 0.406],
    [0.229, 0.224, 0.225],
  ];
  const about = how(224, "bicubic", mean, deviation);
  const row = prepare(pixels, about, [0, 0, 23, 17]).subarray(5 * 224 * 3, 5 * 224 * 3 + 60);
  expect(furthest(row, golden.normalised)).toBeLessThan(1e-5);
  const turned = prepare(pixels, { ...about, order: "bgr" }, [0, 0, 23, 17], true);
  expect(turned[5 * 224]).toBe(row[2]);
  expect(turned[2 * 224 * 224 + 5 * 224]).toBe(row[0]);
});

it("joins taps, and packs vector and look, as Python does", () => {
  const parts = [
    { network: network(0.5), weight: 1 },
    { network: network(1), weight: 0.5 },
  ];
  const vector = joinedVector(parts, [[values(768, 1), values(1280, 2)], [values(1280, 3)]]);
  const positive = values(1000, 4).map(Math.abs);
  const sum = positive.reduce((total, value) => total + value, 0);
  const bytes = vectorBytes(
    vector,
    packLook(
      positive.map((value) => value / sum),
      colourSignature(picture("waves")),
    ),
  );
  const wanted = fromBase64(golden.vector);
  expect(bytes.length).toBe(wanted.length);
  expect(furthest(readHalves(bytes, 3328), readHalves(wanted, 3328))).toBeLessThan(1e-4);
  expect(furthest(bytes.subarray(2 * 3328), wanted.subarray(2 * 3328))).toBeLessThanOrEqual(1);
});

it("rounds the root of a probability in single precision", () => {
  const roots = packLook(Float32Array.of(0.81, 0.09), new Uint8Array(162)).subarray(64, 66);
  expect([...roots]).toEqual([230, 76]);
});

it("finds heat and telling parts as Python does", () => {
  const maps = [
    { edge: 17, channels: 24, data: values(17 * 17 * 24, 5) },
    { edge: 8, channels: 16, data: values(8 * 8 * 16, 6) },
  ];
  const warmth = heat(
    maps,
    values(40, 7).map((value) => value * value),
  );
  expect(furthest(warmth, golden.heat)).toBeLessThan(1e-4);
  expect(tellingParts(warmth)).toEqual(golden.regions);
});

it("says how little is left of a picture", () => {
  expect(() => focus(picture("small"), [0, 0, 0.1, 1], [])).toThrow(TooLittle);
  expect(() => focus(picture("disc"), null, [[0, 0, 1, 1]])).toThrow(TooLittle);
});

describe("of a file that Visor did not make", () => {
  const told = {
    fingerprint: "f",
    allowed: true,
    licences: "",
    label_names: ["cat", "dog"],
    description: {
      name: "own",
      dimension: 2,
      parts: [
        {
          weight: 1,
          network: {
            name: "net",
            preprocessing: how(8, "bilinear"),
            taps: [{ layer: "map", channels: 2, edge: 2 }],
            power: 1,
            signed: false,
            head: "labels",
            logits: true,
          },
        },
      ],
    },
    files: [{ network: "net", url: "", size_bytes: 1, sha256: "" }],
  };

  it("taps are averaged over their places, also with the channels first, and log-odds become probabilities", async () => {
    // Two channels of 2 × 2 places: means 4 and 3.
    const last = [4, 0, 4, 0, 4, 6, 4, 6];
    const first = [4, 4, 4, 4, 0, 0, 6, 6];
    for (const [input, shape, data] of [
      [[1, 8, 8, 3], [1, 2, 2, 2], last],
      [[1, 3, 8, 8], [1, 2, 2, 2], first],
    ] as const) {
      const runner: Runner = {
        input: [...input],
        outputs: [1, 0],
        run: async () => [
          { shape: [1, 2], data: Float32Array.of(0, Math.log(3)) },
          { shape: [...shape], data: Float32Array.from(data) },
        ],
      };
      const looker = new Looker(readModel(told as unknown as DeviceModel), new Map([["net", runner]]));
      const seen = await looker.look(picture("small"), { width: 23, height: 17 });
      expect(furthest(readHalves(fromBase64(seen.vector), 2), [0.8, 0.6])).toBeLessThan(1e-3);
      expect(seen.labels).toEqual([
        { name: "dog", probability: 0.75 },
        { name: "cat", probability: 0.25 },
      ]);
      expect([seen.safety, seen.closer, seen.width]).toEqual([null, undefined, 23]);
      const heated = await looker.warmth(picture("small"), Float32Array.of(0, 1));
      expect(heated[15 * 16]).toBeGreaterThan(0.5);
      expect(heated[0]).toBe(0);
    }
  });

  it("numbers that are not finite are no vector and no labels", async () => {
    for (const [head, map] of [
      [Number.NaN, 1],
      [0, Number.POSITIVE_INFINITY],
    ] as const) {
      const runner: Runner = {
        input: [1, 8, 8, 3],
        outputs: [1, 0],
        run: async () => [
          { shape: [1, 2], data: Float32Array.of(head, 1) },
          { shape: [1, 1, 1, 2], data: Float32Array.of(map, 1) },
        ],
      };
      const looker = new Looker(readModel(told as unknown as DeviceModel), new Map([["net", runner]]));
      const seen = looker.look(picture("small"), { width: 23, height: 17 });
      await expect(seen).rejects.toThrow("net gives numbers that are not finite");
    }
  });

  it("each view of a closer look counts the same", async () => {
    const { parts } = told.description;
    const centred = { ...how(8, "bilinear"), views: ["centre"] };
    const nearer = parts.map((part) => ({ ...part, network: { ...part.network, preprocessing: centred } }));
    const model = { ...told, closer: true, description: { ...told.description, parts: nearer } };
    const maps = [
      [9, 0],
      [0, 6],
      [0, 6],
    ];
    const runner: Runner = {
      input: [1, 8, 8, 3],
      outputs: [1, 0],
      run: async () => [
        { shape: [1, 2], data: Float32Array.of(0, 0) },
        { shape: [1, 1, 1, 2], data: Float32Array.from(maps.shift() as number[]) },
      ],
    };
    const looker = new Looker(readModel(model as unknown as DeviceModel), new Map([["net", runner]]));
    const seen = await looker.look(picture("small"), { width: 23, height: 17 });
    // The means are 3 and 4.
    expect(furthest(readHalves(fromBase64(seen.closer as string), 2), [0.6, 0.8])).toBeLessThan(1e-3);
  });

  it("a picture that seems unsafe at first gets a second opinion", async () => {
    const parts = told.description.parts.map((part) => ({
      ...part,
      network: { ...part.network, head: "safety", logits: false },
    }));
    const unsafeOf = async (scores: number[]): Promise<number | undefined> => {
      const runner: Runner = {
        input: [1, 8, 8, 3],
        outputs: [1, 0],
        run: async () => {
          const porn = scores.shift() as number;
          return [
            { shape: [1, 5], data: Float32Array.of(0, 0, 1 - porn, porn, 0) },
            { shape: [1, 1, 1, 2], data: Float32Array.of(1, 1) },
          ];
        },
      };
      const description = { ...told.description, parts };
      const looker = new Looker(
        readModel({ ...told, description } as unknown as DeviceModel),
        new Map([["net", runner]]),
      );
      return (await looker.look(picture("small"), { width: 23, height: 17 })).safety?.porn;
    };
    expect(await unsafeOf([0.9, 0.6, 0.3])).toBeCloseTo(0.6);
    expect(await unsafeOf([0.04])).toBeCloseTo(0.04);
  });
});
