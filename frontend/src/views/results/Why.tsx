import { useEffect, useRef, useState } from "preact/hooks";
import { fromBase64 } from "../../bytes/base64";
import { fromHalves, halvesOf } from "../../bytes/float16";
import { lookAt, staysHere, warmthIn } from "../../device/switch";
import type { Trouble } from "../../endpoint/api";
import type { Match } from "../../endpoint/contract";
import { requestNow } from "../../search/ask";
import { problemOf } from "../../search/problems";
import { answer, api, askedAs, pictureAddress, query } from "../../state";
import { t } from "../../words/messages";
import { surenessOfMatch } from "../../words/sureness";
import { Dialog } from "../elements/Dialog";
import { DialogTrouble } from "../elements/Notice";

/** A heat-map: a grey PNG in base64, or a square of numbers from 0 to 1. */
type Map = string | Float32Array;

interface Heat {
  query: Map;
  item: Map;
}

/** For a picture that stays here, the device draws its own map. */
async function explainNow(id: string, signal: AbortSignal): Promise<Heat> {
  const { request, picture } = requestNow();
  const asked = query.value?.picture;
  if (!asked || !staysHere(asked)) {
    const { query: heat, item } = await api.value.explain(request, picture, id, signal);
    return { query: heat ?? "", item };
  }
  const { box = null, exclude = [], ...rest } = request;
  const seen = await lookAt(asked, box, exclude);
  const { item, shares } = await api.value.explain({ ...rest, seen }, null, id, signal);
  const halves = fromBase64(shares ?? "");
  return { item, query: await warmthIn(asked, box, exclude, fromHalves(halvesOf(halves))) };
}

/** Where in the two pictures the likeness is. */
export function Why({ match, onClose }: { match: Match; onClose: () => void }) {
  const [found, setFound] = useState<Heat | null>(null);
  const [trouble, setTrouble] = useState<Trouble | null>(null);
  useEffect(() => {
    const controller = new AbortController();
    explainNow(match.item.id, controller.signal)
      .then(setFound)
      .catch((reason) => {
        if (!controller.signal.aborted) setTrouble(problemOf(reason));
      });
    return () => controller.abort();
  }, [match.item.id]);
  return (
    <Dialog title={t("why.title")} wide onClose={onClose}>
      {trouble ? (
        <DialogTrouble problem={trouble} />
      ) : (
        <>
          <div class="pair">
            <Heated caption={t("page.query")} src={query.value?.picture.src ?? ""} heat={found?.query} />
            <Heated
              caption={match.item.title || t("why.match")}
              src={pictureAddress(match.item.image_url)}
              heat={found?.item}
            />
          </div>
          <p class="heat-key" aria-hidden="true">
            <span>{t("why.little")}</span>
            <span class="heat-scale" />
            <span>{t("why.much")}</span>
          </p>
          <p class="dialog-text muted" role="status">
            {found ? `${t("why.warm")} ${said(match)}` : t("why.comparing")}
          </p>
        </>
      )}
    </Dialog>
  );
}

/** How sure the match is, as its card says it. */
function said({ confidence }: Match): string {
  const [words, percent] = surenessOfMatch(confidence, answer.value, askedAs.value);
  return percent ? t("why.text", { words, percent }) : words && `${words}.`;
}

function Heated({ caption, src, heat }: { caption: string; src: string; heat: Map | undefined }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [aspect, setAspect] = useState(1);
  useEffect(() => {
    if (heat && canvas.current) void colour(heat, canvas.current);
  }, [heat]);
  return (
    <figure>
      <span class="heated" style={{ "--aspect": aspect }}>
        <img
          src={src}
          alt={caption}
          referrerpolicy="no-referrer"
          onLoad={({ currentTarget: image }) => setAspect(image.naturalWidth / image.naturalHeight || 1)}
        />
        <canvas ref={canvas} />
      </span>
      <figcaption dir="auto">{caption}</figcaption>
    </figure>
  );
}

/** From clear over yellow to red: warmth, then red, green, blue and opacity. */
const WARMTH: readonly (readonly [number, readonly number[]])[] = [
  [0, [255, 225, 90, 0]],
  [0.35, [255, 205, 60, 130]],
  [0.7, [245, 115, 25, 195]],
  [1, [200, 15, 40, 225]],
];

/** The colour of a cell that adds this much, 0 to 1. */
function warm(value: number): number[] {
  const above = Math.max(
    WARMTH.findIndex(([at]) => value <= at),
    1,
  );
  const [[from, low], [to, high]] = [WARMTH[above - 1], WARMTH[above]] as [(typeof WARMTH)[0], (typeof WARMTH)[0]];
  const share = (value - from) / (to - from);
  return low.map((part, index) => part + ((high[index] ?? part) - part) * share);
}

/** Draws a map as warmth over the picture. */
async function colour(map: Map, canvas: HTMLCanvasElement): Promise<void> {
  const context = canvas.getContext("2d");
  if (!context) return;
  const values = typeof map === "string" ? await greysOf(map, canvas, context) : map;
  const edge = Math.sqrt(values.length);
  const pixels = context.createImageData(edge, edge);
  values.forEach((value, place) => {
    pixels.data.set(warm(value), place * 4);
  });
  [canvas.width, canvas.height] = [edge, edge];
  context.putImageData(pixels, 0, 0);
}

async function greysOf(
  base64: string,
  canvas: HTMLCanvasElement,
  context: CanvasRenderingContext2D,
): Promise<Float32Array> {
  const image = new Image();
  image.src = `data:image/png;base64,${base64}`;
  await image.decode();
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  return Float32Array.from({ length: data.length / 4 }, (_, place) => (data[place * 4] ?? 0) / 255);
}
