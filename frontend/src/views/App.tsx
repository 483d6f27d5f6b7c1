import { useEffect, useLayoutEffect, useState } from "preact/hooks";
import { REGRET_MS } from "../endpoint/feedback";
import { readTransfer } from "../picture/picture";
import { searchOffered, startOver } from "../search";
import { announcement, config, isBusy, query, toast } from "../state";
import { theme, toggleTheme } from "../theme";
import { About } from "./about/About";
import { Icon, Mark } from "./elements/icons";
import { Notes } from "./elements/Notes";
import { Filters } from "./query/Filters";
import { Insight } from "./query/Insight";
import { PictureEditor } from "./query/PictureEditor";
import { Results } from "./results/Results";
import { Intake } from "./start/Intake";
import { Start } from "./start/Start";

export function App() {
  const [about, setAbout] = useState(false);
  const searching = query.value !== null;
  return (
    <>
      <button
        type="button"
        class="skip"
        onClick={() => document.getElementById(searching ? "results" : "main")?.focus()}
      >
        Skip to the {searching ? "results" : "content"}
      </button>
      <header class={searching ? "top top-searching" : "top"}>
        <button type="button" class="brand" onClick={startOver} aria-label={`${config.value.title}: start over`}>
          <Mark />
          <span>{config.value.title}</span>
        </button>
        {searching && <Intake compact />}
        <div class="top-actions">
          <button
            type="button"
            class="icon-button"
            onClick={toggleTheme}
            aria-label={theme.value === "dark" ? "Light colours" : "Dark colours"}
          >
            <Icon name={theme.value === "dark" ? "sun" : "moon"} />
          </button>
          <button type="button" class="icon-button" onClick={() => setAbout(true)} aria-label="About">
            <Icon name="info" />
          </button>
        </div>
        {isBusy.value && <span class="progress" />}
      </header>
      <main id="main" tabIndex={-1}>
        {searching ? <Searched /> : <Start />}
      </main>
      <Foot />
      <DropTarget />
      <Toast />
      <p class="visually-hidden" role="status" aria-live="polite">
        {announcement.value}
      </p>
      {about && <About onClose={() => setAbout(false)} />}
    </>
  );
}

function Searched() {
  const current = query.value;
  return (
    <div class="searched">
      <h1 class="visually-hidden">Results</h1>
      <div class="side">
        <section class={current?.kind === "item" ? "query query-item" : "query"} aria-label="Your picture">
          {/* Tools, strokes and their undoing belong to one picture. */}
          {current && <PictureEditor key={current.picture.src ?? current.picture.name} query={current} />}
          {current?.kind === "item" && (
            <p class="query-name">
              More like <strong dir="auto">{current.item?.title || "this item"}</strong>
            </p>
          )}
        </section>
        <Insight />
        <Filters />
      </div>
      <Results />
    </div>
  );
}

function Foot() {
  return (
    <footer class="foot">
      <Notes />
      <p>Reverse image search by Visor</p>
    </footer>
  );
}

/** Takes pictures that are dropped or pasted anywhere on the page. */
function DropTarget() {
  const [over, setOver] = useState(false);
  useLayoutEffect(() => {
    let depth = 0;
    const isOurs = (event: DragEvent) =>
      [...(event.dataTransfer?.types ?? [])].some((type) => type === "Files" || type.startsWith("text/"));
    const enter = (event: DragEvent) => {
      if (!isOurs(event)) return;
      depth += 1;
      setOver(true);
    };
    const leave = () => {
      depth = Math.max(0, depth - 1);
      if (depth === 0) setOver(false);
    };
    const hover = (event: DragEvent) => {
      if (isOurs(event)) event.preventDefault();
    };
    const drop = (event: DragEvent) => {
      event.preventDefault();
      depth = 0;
      setOver(false);
      void readTransfer(event.dataTransfer).then(searchOffered);
    };
    const paste = (event: ClipboardEvent) => {
      if (event.target instanceof HTMLInputElement) return;
      void readTransfer(event.clipboardData).then(searchOffered);
    };
    const listeners = { dragenter: enter, dragleave: leave, dragover: hover, drop, paste };
    for (const [name, listener] of Object.entries(listeners)) addEventListener(name, listener as EventListener);
    return () => {
      for (const [name, listener] of Object.entries(listeners)) removeEventListener(name, listener as EventListener);
    };
  }, []);
  if (!over) return null;
  return (
    <div class="drop-veil" aria-hidden="true">
      <span>
        <Icon name="upload" size={36} />
        Drop to search
      </span>
    </div>
  );
}

function Toast() {
  const shown = toast.value;
  useEffect(() => {
    if (!shown) return;
    const timer = setTimeout(() => {
      if (toast.value === shown) toast.value = null;
    }, REGRET_MS);
    return () => clearTimeout(timer);
  }, [shown]);
  return (
    <div class="toast-place" role="status">
      {shown && (
        <div class="toast">
          <span>{shown.text}</span>
          {shown.action && (
            <button type="button" onClick={shown.action.run}>
              {shown.action.label}
            </button>
          )}
        </div>
      )}
    </div>
  );
}
