import { toBase64 } from "../bytes/base64";
import type { Box, Region, Seen } from "../endpoint/contract";
import { heat, meansOf, tellingParts } from "./heat";
import { colourSignature } from "./image/colours";
import { emptiness } from "./image/content";
import type { Decoded } from "./image/decode";
import { BOX_SIDE_MIN } from "./image/focus";
import { perceptualHash } from "./image/hash";
import { cropped, type Edges, edgesOf, type Pixels } from "./image/pixels";
import { type DeviceModel, type Network, SAFETY_CLASSES, type View } from "./model";
import {
  type FeatureMap,
  greatest,
  joinedVector,
  LABELS_KEPT,
  meanOf,
  type Outputs,
  packLook,
  prepare,
  probabilities,
  vectorBytes,
  viewOf,
} from "./vector";

/** Least probability at which a part of a picture has a label. */
const LABEL_MIN = 0.25;
/** How many times finer a picture with excluded parts is decoded: little may be left of it. */
const EXCLUDED_FROM = 4;

/** Unsafe score from which the safety head gets a second opinion, as on the server (`models/moderation.py`). */
const SUSPECTED = 0.05;
/** Parts of a picture that give it: LiteRT.js does not run a network at the server's second resolution. */
const OPINIONS: readonly Box[] = [
  [0.025, 0.025, 0.95, 0.95],
  [0.05, 0.05, 0.9, 0.9],
];

/** One output of a network, for one picture. */
export interface Tensor {
  shape: number[];
  data: Float32Array;
}

/** A network that is ready to run. */
export interface Runner {
  /** Shape of its input. */
  input: number[];
  /** Positions of taps and head among its outputs, if Visor did not make the file. */
  outputs: number[];
  run(input: Float32Array): Promise<Tensor[]>;
}

/** Pixels that the shorter side needs so that no view of any network is enlarged, for this part of the picture. */
export function sideFor(model: DeviceModel, box: Box | null, exclude: readonly Box[]): number {
  const shareOf = (view: View) => (view === "whole" ? 1 : view === "centre" ? model.centre_share : view);
  const sides = model.description.parts.flatMap(({ network: { preprocessing: how } }) =>
    how.views.map((view) => Math.ceil(how.size / shareOf(view))),
  );
  const side = Math.max(...sides) / (box ? Math.max(Math.min(box[2], box[3]), 1e-3) : 1);
  return Math.round(side) * (exclude.length > 0 ? EXCLUDED_FROM : 1);
}

/** Embeds pictures as the server would (visor/search/query.py, `_seen`). */
export class Looker {
  constructor(
    private readonly model: DeviceModel,
    private readonly runners: ReadonlyMap<string, Runner>,
  ) {}

  /** The part of a picture that counts; the size is that of the whole picture. */
  async look(pixels: Pixels, { width, height }: Omit<Decoded, "pixels">): Promise<Seen> {
    const { parts } = this.model.description;
    const seen = await this.outputsOf(pixels);
    const bytesOf = (looks: Outputs[], part?: Edges) => {
      const vector = joinedVector(
        parts,
        looks.map((one) => one.taps),
      );
      return toBase64(vectorBytes(vector, packLook(this.head(looks, "labels"), colourSignature(pixels, part))));
    };
    const safety = await this.safety(pixels, seen);
    const found: Seen = {
      model: this.model.fingerprint,
      vector: bytesOf(seen),
      hash: toBase64(perceptualHash(pixels)),
      labels: this.labels(seen),
      safety: safety && Object.fromEntries(SAFETY_CLASSES.map((name, place) => [name, safety[place] ?? 0])),
      blank: emptiness(pixels),
      width,
      height,
    };
    if (!this.model.closer) return found;
    const middle = viewOf(pixels, this.model.closer_views.at(-1) as number, this.model.centre_share);
    return { ...found, closer: bytesOf(await this.closer(pixels, seen), middle) };
  }

  /** Up to four parts of a picture that show what is special about it, each with its label. */
  async regions(pixels: Pixels): Promise<Region[]> {
    const maps = await this.maps(pixels);
    if (maps.length === 0) return [];
    const boxes = tellingParts(
      heat(
        maps,
        this.vectorOf(maps).map((value) => value * value),
      ),
    );
    const found: Region[] = [];
    for (const box of boxes) {
      const part = cropped(pixels, edgesOf(pixels, box));
      if (Math.min(part.width, part.height) < BOX_SIDE_MIN) continue;
      const [best] = this.labels(await this.outputsOf(part));
      found.push({ box, label: best && best.probability >= LABEL_MIN ? best.name : null });
    }
    return found;
  }

  /** Where in a picture the likeness with these shares is: `GRID` rows of cells from 0 to 1. */
  async warmth(pixels: Pixels, shares: Float32Array): Promise<Float32Array> {
    return heat(await this.maps(pixels), shares);
  }

  private async outputsOf(pixels: Pixels): Promise<Outputs[]> {
    const found: Outputs[] = [];
    for (const { network } of this.model.description.parts) {
      found.push(meanOf(await this.looks(network, pixels, network.preprocessing.views)));
    }
    return found;
  }

  /** Networks that see only the whole picture gain nothing from a closer look. */
  private async closer(pixels: Pixels, seen: readonly Outputs[]): Promise<Outputs[]> {
    const found: Outputs[] = [];
    for (const [place, { network }] of this.model.description.parts.entries()) {
      const one = seen[place] as Outputs;
      const { views } = network.preprocessing;
      const isWhole = views.length === 1 && views[0] === "whole";
      const nearer = isWhole ? [] : await this.looks(network, pixels, this.model.closer_views);
      // Each view counts the same.
      found.push(nearer.length > 0 ? meanOf([...views.map(() => one), ...nearer]) : one);
    }
    return found;
  }

  /** Probabilities of the safety classes: of a suspected picture their mean over it and parts of it. */
  private async safety(pixels: Pixels, seen: readonly Outputs[]): Promise<Float32Array | null> {
    const place = this.model.description.parts.findIndex(({ network }) => network.head === "safety");
    const first = seen[place];
    const network = this.model.description.parts[place]?.network;
    if (!first?.head || !network || unsafeScore(first.head) < SUSPECTED) return first?.head ?? null;
    const all = [first];
    for (const box of OPINIONS) {
      all.push(...(await this.looks(network, cropped(pixels, edgesOf(pixels, box)), network.preprocessing.views)));
    }
    return meanOf(all).head;
  }

  private async looks(network: Network, pixels: Pixels, views: readonly View[]): Promise<Outputs[]> {
    const found: Outputs[] = [];
    for (const view of views) found.push(await this.outputs(network, pixels, view));
    const areNumbers = ({ taps, head }: Outputs) => [...taps, head ?? []].every((one) => one.every(Number.isFinite));
    if (!found.every(areNumbers)) throw new Error(`${network.name} gives numbers that are not finite`);
    return found;
  }

  private async outputs(network: Network, pixels: Pixels, view: View): Promise<Outputs> {
    const runner = this.runners.get(network.name) as Runner;
    const isPlanar = runner.input.at(-3) === 3 && runner.input.at(-1) !== 3;
    const box = viewOf(pixels, view, this.model.centre_share);
    const all = await runner.run(prepare(pixels, network.preprocessing, box, isPlanar));
    const count = network.taps.length;
    if (runner.outputs.length === 0) {
      const head = network.head ? ((all[count] as Tensor).data as Float32Array) : null;
      const maps = all.slice(count + (head ? 1 : 0)).map(mapOf);
      return { taps: all.slice(0, count).map(({ data }) => data), head, maps };
    }
    const wanted = runner.outputs.map((place) => all[place] as Tensor);
    const raw = wanted.slice(0, count).map((one) => mapOf(channelsLast(one, isPlanar)));
    const head = network.head ? probabilities((wanted.at(-1) as Tensor).data, network.logits) : null;
    return { taps: raw.map(meansOf), head, maps: raw.filter((_, place) => network.taps[place]?.edge) };
  }

  /** The feature maps behind the vector, of the whole picture. */
  private async maps(pixels: Pixels): Promise<FeatureMap[]> {
    const found: FeatureMap[] = [];
    for (const { network, weight } of this.model.description.parts) {
      if (weight <= 0) continue;
      if (network.taps.some((tap) => tap.edge === 0)) return [];
      found.push(...(await this.outputs(network, pixels, "whole")).maps);
    }
    return found;
  }

  private vectorOf(maps: readonly FeatureMap[]): Float32Array {
    let start = 0;
    const { parts } = this.model.description;
    const taps = parts.map(({ network, weight }) => {
      const count = weight > 0 ? network.taps.length : 0;
      start += count;
      return maps.slice(start - count, start).map(meansOf);
    });
    return joinedVector(parts, taps);
  }

  private head(seen: readonly Outputs[], kind: "labels" | "safety"): Float32Array | null {
    const place = this.model.description.parts.findIndex(({ network }) => network.head === kind);
    return seen[place]?.head ?? null;
  }

  private labels(seen: readonly Outputs[]): NonNullable<Seen["labels"]> {
    const head = this.head(seen, "labels");
    if (!head) return [];
    return greatest(head, LABELS_KEPT).map((place) => ({
      name: this.model.label_names[place] ?? "",
      probability: Math.round((head[place] as number) * 10_000) / 10_000,
    }));
  }
}

/** As `unsafe_score` of the server: hentai and porn count fully, sexy by half. */
function unsafeScore(head: Float32Array): number {
  const of = (name: string) => head[SAFETY_CLASSES.indexOf(name)] ?? 0;
  return of("hentai") + of("porn") + of("sexy") / 2;
}

const mapOf = ({ shape, data }: Tensor): FeatureMap => {
  const channels = shape.at(-1) as number;
  return { edge: Math.round(Math.sqrt(data.length / channels)), channels, data };
};

/** Changes PyTorch's order of axes into the other one. */
function channelsLast({ shape, data }: Tensor, isPlanar: boolean): Tensor {
  if (!isPlanar || shape.length < 4) return { shape, data };
  const [channels, rows, columns] = shape.slice(-3) as [number, number, number];
  const places = rows * columns;
  const turned = data.map((_, i) => data[(i % channels) * places + Math.floor(i / channels)] as number);
  return { shape: [rows, columns, channels], data: turned };
}
