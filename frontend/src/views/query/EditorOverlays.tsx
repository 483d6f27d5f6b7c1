import type { Box } from "../../endpoint/contract";
import { EDGES, type Point } from "../../picture/geometry";
import { boxesOf, isEmpty, type Mask } from "../../picture/mask";
import type { Query } from "../../state";
import { labelName } from "../../words/labels";
import { t } from "../../words/messages";

const percent = (value: number) => `${value * 100}%`;

/** What is painted out, drawn as exactly the boxes that are sent. */
export function Painted({ mask, aspect }: { mask: Mask | null; aspect: number }) {
  if (isEmpty(mask)) return null;
  const [width, height] = [1000 * Math.max(aspect, 0.01), 1000];
  const path = boxesOf(mask)
    .map(([x, y, w, h]) => `M${x * width} ${y * height}h${w * width}v${h * height}h${-w * width}z`)
    .join("");
  return (
    <svg class="painted" viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" aria-hidden="true">
      <defs>
        <pattern id="hatch" width="26" height="26" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
          <rect class="hatch-ground" width="26" height="26" />
          <rect class="hatch-line" width="8" height="26" />
        </pattern>
      </defs>
      <path d={path} fill="url(#hatch)" />
    </svg>
  );
}

/** The box, with a handle at each edge and corner. */
export function BoxFrame({ box: [x, y, width, height] }: { box: Box }) {
  return (
    <div class="box" style={{ left: percent(x), top: percent(y), width: percent(width), height: percent(height) }}>
      {EDGES.map((edge) => (
        <span key={edge} class={`grip grip-${edge}`} data-edge={edge} />
      ))}
    </div>
  );
}

/** Where the brush is, and how broad. */
export function BrushCursor({ at, radius, aspect }: { at: Point; radius: number; aspect: number }) {
  const [width, height] = aspect >= 1 ? [2 * radius, 2 * radius * aspect] : [(2 * radius) / aspect, 2 * radius];
  return (
    <span
      class="brush-cursor"
      style={{ left: percent(at.x), top: percent(at.y), width: percent(width), height: percent(height) }}
    />
  );
}

/** Parts of the picture that one may want to search for: a dot on each, and its outline while it is pointed at. */
export function Regions({ query, onChoose }: { query: Query; onChoose: (box: Box) => void }) {
  const regions = "regions" in query ? (query.regions ?? []) : [];
  return (
    <>
      {regions.map(({ box, label }, index) => {
        const [x, y, width, height] = box;
        const name = label ? labelName(label) : t("editor.region", { number: index + 1 });
        return (
          <button
            key={box.join()}
            type="button"
            class="region"
            style={{ left: percent(x + width / 2), top: percent(y + height / 2) }}
            aria-label={t("editor.region.label", { name })}
            title={t("editor.region.label", { name })}
            onClick={() => onChoose(box)}
          >
            <span class="region-dot" />
          </button>
        );
      })}
    </>
  );
}
