import { groundOf } from "../../picture/ground";
import { type Pixels, scaledDown } from "./pixels";

/** As in visor/imaging/decode.py. */
const FRAMES_MAX = 32;
const FRAME_DEVIATION_MIN = 10;

/** This browser cannot decode the file. */
export class Undecodable extends Error {}

/** A picture, upright, in sRGB, and no larger than needed. */
export interface Decoded {
  pixels: Pixels;
  /** The original size. */
  width: number;
  height: number;
}

/**
 * The picture in a file; in an animation, the first frame that is not blank.
 *
 * `side`: least length of the shorter side if the picture is scaled down by a whole factor, as the server does.
 */
export async function decode(file: Blob, side: number): Promise<Decoded> {
  const frames = await framesOf(file);
  let best: (Decoded & { deviation: number }) | null = null;
  try {
    for await (const frame of frames) {
      const found = scaled(frame, side);
      frame.close();
      const deviation = deviationOf(found.pixels);
      if (!best || deviation > best.deviation) best = { ...found, deviation };
      if (deviation >= FRAME_DEVIATION_MIN) break;
    }
  } catch (error) {
    // The frames before a broken one are still pictures.
    if (!best) throw new Undecodable(String(error));
  }
  if (!best) throw new Undecodable("no frame");
  return best;
}

async function framesOf(file: Blob): Promise<AsyncIterable<ImageBitmap | VideoFrame> | [ImageBitmap]> {
  const { type } = file;
  const canMove = ["image/gif", "image/webp", "image/png", "image/apng", "image/avif"].includes(type);
  if (canMove && "ImageDecoder" in globalThis) {
    const decoder = new ImageDecoder({ type: type === "image/apng" ? "image/png" : type, data: file.stream() });
    try {
      await decoder.tracks.ready;
      await decoder.completed;
      const track = decoder.tracks.selectedTrack;
      if (track && track.frameCount > 1) return moving(decoder, Math.min(track.frameCount, FRAMES_MAX));
    } catch {
      // The other way finds out whether it is a picture.
    }
    decoder.close();
  }
  try {
    return [await createImageBitmap(file, { imageOrientation: "from-image" })];
  } catch (error) {
    throw new Undecodable(String(error));
  }
}

async function* moving(decoder: ImageDecoder, count: number): AsyncGenerator<VideoFrame> {
  try {
    for (let frameIndex = 0; frameIndex < count; frameIndex++) yield (await decoder.decode({ frameIndex })).image;
  } finally {
    decoder.close();
  }
}

function scaled(source: ImageBitmap | VideoFrame, side: number): Decoded {
  const [width, height] =
    source instanceof ImageBitmap ? [source.width, source.height] : [source.displayWidth, source.displayHeight];
  const factor = Math.max(1, Math.trunc(Math.min(width, height) / side));
  const ground = groundOf(source, width, height, contextOf);
  const rowsOf = (top: number, bottom: number): Pixels => {
    const context = contextOf(width, bottom - top);
    context.fillStyle = ground;
    context.fillRect(0, 0, width, bottom - top);
    context.drawImage(source, 0, -top);
    const { data } = context.getImageData(0, 0, width, bottom - top);
    return { data, width, height: bottom - top, step: 4 };
  };
  return { pixels: scaledDown(width, height, factor, rowsOf), width, height };
}

function contextOf(width: number, height: number): OffscreenCanvasRenderingContext2D {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("no canvas");
  return context;
}

/** Standard deviation of its greys. */
function deviationOf({ data }: Pixels): number {
  let [sum, squares] = [0, 0];
  for (let i = 0; i < data.length; i += 3) {
    const grey = 0.299 * (data[i] as number) + 0.587 * (data[i + 1] as number) + 0.114 * (data[i + 2] as number);
    sum += grey;
    squares += grey * grey;
  }
  const count = data.length / 3;
  return Math.sqrt(Math.max(squares / count - (sum / count) ** 2, 0));
}
