/** As in visor/imaging/ground.py. */
const SAMPLES_SIDE = 256;
const VISIBLE_MIN = 0.2;
const VISIBLE_DISTANCE = 24;
const GROUNDS = { white: "#fff", grey: "#606060" };

type Context = CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D;

/** The background for a transparent picture: white, unless it shows something white. */
export function groundOf(
  source: CanvasImageSource,
  width: number,
  height: number,
  contextOf: (width: number, height: number) => Context,
): string {
  const [columns, rows] = [Math.min(width, SAMPLES_SIDE), Math.min(height, SAMPLES_SIDE)];
  const context = contextOf(columns, rows);
  context.imageSmoothingEnabled = false;
  context.drawImage(source, 0, 0, columns, rows);
  const { data } = context.getImageData(0, 0, columns, rows);
  let [visible, total] = [0, 0];
  for (let i = 0; i < data.length; i += 4) {
    const alpha = (data[i + 3] as number) / 255;
    const least = Math.min(data[i] as number, data[i + 1] as number, data[i + 2] as number);
    total += alpha;
    if ((255 - least) * alpha > VISIBLE_DISTANCE) visible += alpha;
  }
  return total === columns * rows || visible >= VISIBLE_MIN * total ? GROUNDS.white : GROUNDS.grey;
}
