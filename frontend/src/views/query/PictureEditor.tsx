import { useRef, useState } from "preact/hooks";
import type { Box } from "../../endpoint/contract";
import { boxBetween, describeBox, type Edge, isInside, moveBox, type Point, resizeBox } from "../../picture/geometry";
import { emptyMask, isEmpty, type Mask, paint, paintedShare } from "../../picture/mask";
import { changeEdit } from "../../search/search";
import { announce, canEdit, type Edit, edit, isBusy, isEdited, phase, type Query } from "../../state";
import { formatShare } from "../../words/format";
import { type Key, t } from "../../words/messages";
import { Icon } from "../elements/icons";
import { BoxFrame, BrushCursor, Painted, Regions } from "./EditorOverlays";

type Tool = "box" | "paint";
type Gesture =
  | { kind: "draw"; from: Point }
  | { kind: "move"; last: Point; moved: boolean }
  | { kind: "resize"; edge: Edge; last: Point }
  | { kind: "paint"; last: Point };

const STEP = 0.02;
const KEYS: Record<string, Point> = {
  ArrowLeft: { x: -STEP, y: 0 },
  ArrowRight: { x: STEP, y: 0 },
  ArrowUp: { x: 0, y: -STEP },
  ArrowDown: { x: 0, y: STEP },
};
const BRUSHES = [
  { name: "editor.fine", radius: 0.025 },
  { name: "editor.medium", radius: 0.05 },
  { name: "editor.broad", radius: 0.1 },
] as const satisfies readonly { name: Key; radius: number }[];

/** The query's picture, with a box to search within and a brush for what does not count. */
export function PictureEditor({ query: current }: { query: Query }) {
  const surface = useRef<HTMLDivElement>(null);
  const [aspect, setAspect] = useState(current.picture.aspect ?? 1);
  const [broken, setBroken] = useState("");
  // With a finger the first drag is a scroll, until a tool is taken up.
  const [tool, setTool] = useState<Tool | null>(() => (matchMedia("(pointer: fine)").matches ? "box" : null));
  const [brush, setBrush] = useState(1);
  const [draft, setDraft] = useState<Edit | null>(null);
  const [cursor, setCursor] = useState<Point | null>(null);
  const [past, setPast] = useState<Edit[]>([]);
  const gesture = useRef<Gesture | null>(null);
  const { src, name } = current.picture;
  if (!src || broken === src) {
    return (
      <div class="stage stage-blank">
        <Icon name="picture" size={36} />
        <span>{reasonForBlank(current)}</span>
      </div>
    );
  }

  const shown = draft ?? edit.value;
  const editable = canEdit.value;
  const radius = BRUSHES[brush]?.radius ?? 0.05;

  const commit = (change: Partial<Edit>, spoken: string) => {
    setPast([...past.slice(-19), edit.value]);
    announce(spoken);
    changeEdit(change);
  };
  const undo = () => {
    const before = past.at(-1);
    if (!before) return;
    setPast(past.slice(0, -1));
    announce(t("editor.undone"));
    changeEdit(before);
  };
  const choose = (box: Box) => commit({ box }, describeBox(box));
  const clear = () => commit({ box: null, mask: null }, t("editor.whole"));

  const at = (event: PointerEvent): Point => {
    const frame = surface.current?.getBoundingClientRect() ?? new DOMRect();
    return { x: (event.clientX - frame.left) / frame.width, y: (event.clientY - frame.top) / frame.height };
  };
  const press = (event: PointerEvent) => {
    if (!editable || !tool || event.button !== 0 || event.target instanceof HTMLButtonElement) return;
    const point = at(event);
    surface.current?.setPointerCapture(event.pointerId);
    const edge = (event.target as HTMLElement).dataset["edge"] as Edge | undefined;
    const { box, mask } = edit.value;
    if (tool === "paint") {
      gesture.current = { kind: "paint", last: point };
      setDraft({ box, mask: paint(mask ?? emptyMask(aspect), point, point, radius) });
    } else if (box && edge) gesture.current = { kind: "resize", edge, last: point };
    else if (box && isInside(box, point)) gesture.current = { kind: "move", last: point, moved: false };
    else gesture.current = { kind: "draw", from: point };
  };
  const drag = (event: PointerEvent) => {
    const point = at(event);
    if (tool === "paint") setCursor(point);
    const now = gesture.current;
    if (!now) return;
    if (now.kind === "draw") return setDraft({ ...shown, box: boxBetween(now.from, point) });
    const { box, mask } = shown;
    const [dx, dy] = [point.x - now.last.x, point.y - now.last.y];
    if (now.kind === "paint") setDraft({ box, mask: paint(mask ?? emptyMask(aspect), now.last, point, radius) });
    else if (box)
      setDraft({ mask, box: now.kind === "move" ? moveBox(box, dx, dy) : resizeBox(box, now.edge, dx, dy) });
    gesture.current = { ...now, last: point };
  };
  const release = () => {
    const done = gesture.current;
    gesture.current = null;
    setDraft(null);
    if (!done || !draft) {
      // A click beside the box takes it away.
      if (done?.kind === "draw" && edit.value.box) commit({ box: null }, t("editor.box.removed"));
      return;
    }
    if (done.kind === "paint") commit({ mask: draft.mask }, spokenMask(draft.mask));
    else if (draft.box || edit.value.box)
      commit({ box: draft.box }, draft.box ? describeBox(draft.box) : t("editor.box.removed"));
  };

  const key = (event: KeyboardEvent) => {
    if (!editable || !tool || event.target !== surface.current) return;
    if ((event.ctrlKey || event.metaKey) && event.key === "z") undo();
    else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (tool === "box" ? !keyBox(event) : !keyPaint(event)) return;
    event.preventDefault();
  };
  const keyBox = (event: KeyboardEvent): boolean => {
    const { box } = edit.value;
    const step = KEYS[event.key];
    const set = (next: Box) => commit({ box: next }, describeBox(next));
    if (!box && (event.key === "Enter" || event.key === " ")) set([0.25, 0.25, 0.5, 0.5]);
    else if (box && step) set(event.shiftKey ? resizeBox(box, "se", step.x, step.y) : moveBox(box, step.x, step.y));
    else if (box && (event.key === "Delete" || event.key === "Backspace"))
      commit({ box: null }, t("editor.box.removed"));
    else return false;
    return true;
  };
  const keyPaint = (event: KeyboardEvent): boolean => {
    const step = KEYS[event.key];
    const here = cursor ?? { x: 0.5, y: 0.5 };
    if (step) {
      const inside = (value: number) => Math.min(Math.max(value, 0), 1);
      setCursor({ x: inside(here.x + step.x * 2), y: inside(here.y + step.y * 2) });
    } else if (event.key === " " || event.key === "Enter") {
      const mask = paint(edit.value.mask ?? emptyMask(aspect), here, here, radius);
      setCursor(here);
      commit({ mask }, spokenMask(mask));
    } else if (event.key === "Delete" || event.key === "Backspace") commit({ mask: null }, t("editor.paint.removed"));
    else return false;
    return true;
  };

  const pick = (next: Tool) => {
    setTool(tool === next ? null : next);
    setCursor(null);
  };
  return (
    <div class={!editable || !tool ? "editor editor-resting" : "editor"}>
      {/* biome-ignore-start lint/a11y/noStaticElementInteractions lint/a11y/useAriaPropsSupportedByRole: it has the role where it acts */}
      <div
        ref={surface}
        class={`stage ${editable && tool ? `stage-${tool}` : ""}`}
        style={{ "--aspect": aspect }}
        role={editable ? "application" : undefined}
        tabIndex={editable && tool ? 0 : undefined}
        aria-label={editable ? t(tool === "paint" ? "editor.paint.label" : "editor.box.label") : undefined}
        aria-describedby={editable && tool ? "tool-hint" : undefined}
        data-testid="stage"
        onPointerDown={press}
        onPointerMove={drag}
        onPointerUp={release}
        onPointerCancel={release}
        onPointerLeave={() => !gesture.current && setCursor(null)}
        onKeyDown={key}
      >
        <img
          src={src}
          alt={name ? t("picture.searched.name", { name }) : t("picture.searched")}
          draggable={false}
          referrerpolicy="no-referrer"
          onLoad={(event) => setAspect(event.currentTarget.naturalWidth / event.currentTarget.naturalHeight || 1)}
          onError={() => setBroken(src)}
        />
        <Painted mask={shown.mask} aspect={aspect} />
        {shown.box && <BoxFrame box={shown.box} />}
        {tool === "paint" && editable && cursor && <BrushCursor at={cursor} radius={radius} aspect={aspect} />}
        {editable && !shown.box && !gesture.current && <Regions query={current} onChoose={choose} />}
        {isBusy.value && <span class="scan" />}
      </div>
      {/* biome-ignore-end lint/a11y/noStaticElementInteractions lint/a11y/useAriaPropsSupportedByRole: it has the role where it acts */}
      {editable && (
        <>
          <Tools
            tool={tool}
            onPick={pick}
            onUndo={past.length > 0 ? undo : null}
            onClear={isEdited.value ? clear : null}
          />
          {tool === "paint" && <Brushes chosen={brush} onChoose={setBrush} />}
          <p class="hint" id="tool-hint">
            {tool && t(`editor.${tool}.hint`)}
            {tool && <span class="hint-keys"> {t(`editor.${tool}.keys`)}</span>}
          </p>
        </>
      )}
    </div>
  );
}

function Tools(props: {
  tool: Tool | null;
  onPick: (tool: Tool) => void;
  onUndo: (() => void) | null;
  onClear: (() => void) | null;
}) {
  const { tool, onPick, onUndo, onClear } = props;
  return (
    <div class="tools" role="toolbar" aria-label={t("editor.tools")}>
      <button type="button" class="tool" aria-pressed={tool === "box"} onClick={() => onPick("box")}>
        <Icon name="box" />
        <span>{t("editor.box")}</span>
      </button>
      <button type="button" class="tool" aria-pressed={tool === "paint"} onClick={() => onPick("paint")}>
        <Icon name="brush" />
        <span>{t("editor.paint")}</span>
      </button>
      {/* In long words they are a line of their own. */}
      <span class="tools tools-back">
        <button type="button" class="tool" disabled={!onUndo} aria-label={t("editor.undo")} onClick={() => onUndo?.()}>
          <Icon name="undo" />
        </button>
        <button type="button" class="tool" disabled={!onClear} onClick={() => onClear?.()}>
          <span>{t("editor.clear")}</span>
        </button>
      </span>
    </div>
  );
}

function Brushes({ chosen, onChoose }: { chosen: number; onChoose: (brush: number) => void }) {
  return (
    <div class="brushes" role="radiogroup" aria-label={t("editor.brush")}>
      {BRUSHES.map(({ name }, index) => (
        <label key={name} class="brush">
          <input type="radio" name="brush" checked={index === chosen} onChange={() => onChoose(index)} />
          <span>{t(name)}</span>
        </label>
      ))}
    </div>
  );
}

/** Why a picture is not shown. */
function reasonForBlank({ kind, picture }: Query): string {
  if (kind === "vector") return t("picture.byLink");
  if (phase.value === "failed") return picture.name;
  if (kind === "item") return t("picture.gone");
  if (kind === "url") return t("picture.unseen");
  const format = /\.(heic|heif|avif|tiff?)$/i.exec(picture.name)?.[1]?.toUpperCase();
  return format ? t("picture.unshown.format", { format }) : t("picture.unshown");
}

function spokenMask(mask: Mask | null): string {
  return mask && !isEmpty(mask)
    ? t("editor.painted", { share: formatShare(paintedShare(mask), undefined, 0) })
    : t("editor.painted.none");
}
