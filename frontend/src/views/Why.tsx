import { useEffect, useRef, useState } from "preact/hooks";
import { type Explanation, Failure } from "../api";
import type { Match } from "../contract";
import { formatPercent } from "../format";
import { requestNow } from "../search";
import { api, query } from "../state";
import { Dialog } from "./Dialog";

/** Where in the two pictures the likeness sits. */
export function Why({ match, onClose }: { match: Match; onClose: () => void }) {
  const [found, setFound] = useState<Explanation | null>(null);
  const [error, setError] = useState("");
  useEffect(() => {
    const controller = new AbortController();
    const { request, picture } = requestNow();
    api.value
      .explain(request, picture, match.item.id, controller.signal)
      .then(setFound)
      .catch((reason) => {
        if (!controller.signal.aborted) setError(reason instanceof Failure ? reason.problem.title : String(reason));
      });
    return () => controller.abort();
  }, [match.item.id]);
  return (
    <Dialog title="Why it matched" wide onClose={onClose}>
      {error ? (
        <p class="dialog-text" role="alert">
          {error}
        </p>
      ) : (
        <>
          <div class="pair">
            <Heated caption="Your picture" src={query.value?.picture.src ?? ""} heat={found?.query} />
            <Heated caption={match.item.title || "The match"} src={match.item.image_url} heat={found?.item} />
          </div>
          <p class="dialog-text muted" role="status">
            {found
              ? `The warmer, the more that part adds to the likeness. ${formatPercent(match.confidence)} sure of this match.`
              : "Comparing the two…"}
          </p>
        </>
      )}
    </Dialog>
  );
}

function Heated({ caption, src, heat }: { caption: string; src: string; heat: string | undefined }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    if (heat && canvas.current) void colour(heat, canvas.current);
  }, [heat]);
  return (
    <figure>
      <span class="heated">
        <img src={src} alt={caption} referrerpolicy="no-referrer" />
        <canvas ref={canvas} />
      </span>
      <figcaption>{caption}</figcaption>
    </figure>
  );
}

/** Draws a grey map as warmth: clear where dark, yellow to red where bright. */
async function colour(base64: string, canvas: HTMLCanvasElement): Promise<void> {
  const image = new Image();
  image.src = `data:image/png;base64,${base64}`;
  await image.decode();
  const context = canvas.getContext("2d");
  if (!context) return;
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    const warmth = (pixels.data[i] ?? 0) / 255;
    pixels.data[i] = 255;
    pixels.data[i + 1] = Math.round(210 * (1 - warmth));
    pixels.data[i + 2] = 0;
    pixels.data[i + 3] = Math.round(200 * warmth ** 1.5);
  }
  context.putImageData(pixels, 0, 0);
}
