import { t } from "../words/messages";
import { groundOf } from "./ground";

/** Longer side of what is sent: several times what the model looks at, and small on any connection. */
export const SIDE_MAX = 1024;
const QUALITY = 0.92;
/** Cloud Run takes requests of up to 32 MiB; of a larger animation the first frame is sent. */
const MOVING_BYTES_MAX = 16 << 20;
const HEAD_BYTES = 4096;
const WEBP_MOVES = 2;

/** A picture to search for. */
export interface Picture {
  /** As somebody gave it, where it is on this device, which may look at it itself. */
  file?: Blob;
  /** What is uploaded, or null for one that the server fetches or knows by itself. */
  blob: Blob | null;
  /** What the page shows, or null where there is nothing to show (an undecodable format, a link's vector). */
  src: string | null;
  name: string;
  /** Width ÷ height, once known. */
  aspect: number | null;
}

/** The address of a picture that nothing on the page holds any more is given back: it keeps the picture in memory. */
const addresses = new FinalizationRegistry<string>((address) => URL.revokeObjectURL(address));

function withAddress(picture: Omit<Picture, "src">, shown: Blob): Picture {
  const made = { ...picture, src: URL.createObjectURL(shown) };
  addresses.register(made, made.src);
  return made;
}

/**
 * A file made ready to be sent: turned upright, at most 1,024 pixels a side, on a ground that shows what is in it,
 * without its metadata (cameras write the place into it). A format that this browser does not decode (HEIC mostly) goes
 * as it is, and so does an animation, of which the server chooses a telling frame. Null for what has no bytes: a folder,
 * or a file that is gone.
 */
export async function preparePicture(file: Blob, name: string): Promise<Picture | null> {
  const decoded = await decode(file);
  if (!decoded) return (await isReadable(file)) ? { file, blob: file, src: null, name, aspect: null } : null;
  const { source, width, height } = decoded;
  const aspect = width / height;
  if (await isMoving(file)) return withAddress({ file, blob: file, name, aspect }, file);
  const scale = Math.min(1, SIDE_MAX / Math.max(width, height));
  const context = contextOf(Math.round(width * scale), Math.round(height * scale));
  const { canvas } = context;
  context.fillStyle = groundOf(source, width, height, contextOf);
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  if (source instanceof ImageBitmap) source.close();
  const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
  // A drawing has pixels only now.
  const own = source instanceof ImageBitmap ? file : (blob ?? file);
  return withAddress({ file: own, blob: blob ?? file, name, aspect }, blob ?? file);
}

function contextOf(width: number, height: number): CanvasRenderingContext2D {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, width);
  canvas.height = Math.max(1, height);
  const context = canvas.getContext("2d");
  if (!context) throw new Error("no canvas");
  return context;
}

/** Whether a file is an animation, and small enough to be sent as a whole. */
async function isMoving(file: Blob): Promise<boolean> {
  if (file.size > MOVING_BYTES_MAX) return false;
  const head = new TextDecoder("latin1").decode(await file.slice(0, HEAD_BYTES).arrayBuffer());
  if (/^RIFF.{4}WEBPVP8X/s.test(head)) return (head.charCodeAt(20) & WEBP_MOVES) !== 0;
  return head.startsWith("GIF8") || head.startsWith("ftypavis", 4) || /^.PNG((?!IDAT).)*acTL/s.test(head);
}

interface Decoded {
  source: CanvasImageSource;
  width: number;
  height: number;
}

const isReadable = (file: Blob): Promise<boolean> =>
  file
    .slice(0, 1)
    .arrayBuffer()
    .then(
      () => true,
      () => false,
    );

async function decode(file: Blob): Promise<Decoded | null> {
  try {
    const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
    return { source: bitmap, width: bitmap.width, height: bitmap.height };
  } catch {
    return decodeAsElement(file);
  }
}

/** Drawings (SVG) become pictures only through an element; they may have no size of their own. */
async function decodeAsElement(file: Blob): Promise<Decoded | null> {
  const address = URL.createObjectURL(file);
  try {
    const image = new Image();
    image.src = address;
    await image.decode();
    return { source: image, width: image.naturalWidth || SIDE_MAX, height: image.naturalHeight || SIDE_MAX };
  } catch {
    return null;
  } finally {
    URL.revokeObjectURL(address);
  }
}

/** What somebody dropped or pasted: a file, the first of so many, an address, or nothing to search for. */
export type Offered = { file: Blob; name: string; count?: number } | { url: string } | null;

/** The first picture in a drop or a paste. A file wins over an address, an image's address over a page's. */
export async function readTransfer(transfer: DataTransfer | null): Promise<Offered> {
  if (!transfer) return null;
  const files = [...transfer.files];
  const pictures = files.filter((one) => one.type.startsWith("image/"));
  const file = pictures[0] ?? files[0];
  if (file) return { file, name: file.name || t("picture.pasted"), count: pictures.length };
  const inPage = imageInHtml(transfer.getData("text/html"));
  const listed = transfer
    .getData("text/uri-list")
    .split(/\r?\n/)
    .find((line) => line && !line.startsWith("#"));
  for (const text of [inPage, listed, transfer.getData("text/plain")]) {
    const offered = await readAddress(text ?? "");
    if (offered) return offered;
  }
  return null;
}

/** A picture by its address: http(s) is fetched by the server, data: is taken apart here. */
export async function readAddress(text: string): Promise<Offered> {
  const address = text.trim();
  const file = /^data:image\//i.test(address) ? fromDataUrl(address) : null;
  if (file) return { file, name: t("picture.pasted") };
  return isWebAddress(address) ? { url: address } : null;
}

/** An address as people type it: `www.shop.example/cat.jpg` is meant to begin with https://. */
export const withScheme = (typed: string): string =>
  /^[a-z\d-]+(\.[a-z\d-]+)+(:\d+)?\/\S+$/i.test(typed.trim()) ? `https://${typed.trim()}` : typed;

export function isWebAddress(text: string): boolean {
  try {
    const url = new URL(text.trim());
    return (url.protocol === "https:" || url.protocol === "http:") && url.host !== "";
  } catch {
    return false;
  }
}

/** The bytes of a `data:` address, or null where it is damaged; not through fetch, which the page's own policy forbids for such addresses. */
export function fromDataUrl(address: string): Blob | null {
  const [, head = "", data] = /^data:([^,]*),(.*)$/is.exec(address) ?? [];
  if (!data) return null;
  try {
    const escaped = data.replace(/[^\0-\x7f]+/g, encodeURIComponent);
    const signs = escaped.replace(/%([\da-f]{2})/gi, (_, code) => String.fromCharCode(Number.parseInt(code, 16)));
    const bytes = /;\s*base64$/i.test(head) ? atob(signs) : signs;
    return new Blob([Uint8Array.from(bytes, (sign) => sign.charCodeAt(0))], { type: head.split(";")[0] ?? "" });
  } catch {
    return null;
  }
}

/** A picture's bytes as a document holds them. */
export async function toBase64(blob: Blob): Promise<string> {
  const reader = new FileReader();
  await new Promise((resolve, reject) => {
    reader.onload = resolve;
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
  return String(reader.result).replace(/^[^,]*,/, "");
}

function imageInHtml(html: string): string | null {
  if (!html) return null;
  return new DOMParser().parseFromString(html, "text/html").querySelector("img")?.getAttribute("src") ?? null;
}

/** Name of the file at an address, for people. */
export function nameOfAddress(address: string): string {
  const url = new URL(address);
  const last = url.pathname.split("/").pop() ?? "";
  try {
    return decodeURIComponent(last) || url.host;
  } catch {
    return last;
  }
}
