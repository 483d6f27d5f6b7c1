import { useEffect, useLayoutEffect, useState } from "preact/hooks";
import { expectPicture } from "../device/switch";
import { REGRET_MS } from "../endpoint/feedback";
import { readTransfer } from "../picture/picture";
import { searchOffered, startOver } from "../search/search";
import { announcement, answer, config, isBusy, query, toast } from "../state";
import { theme, toggleTheme } from "../theme";
import { chooseLanguage, LANGUAGES, language, nameOf, rich, t } from "../words/messages";
import { About } from "./about/About";
import { Ask } from "./ask/Ask";
import { DeviceSwitch } from "./elements/DeviceSwitch";
import { Icon, Mark } from "./elements/icons";
import { Notes } from "./elements/Notes";
import { Filters } from "./query/Filters";
import { Insight } from "./query/Insight";
import { PictureEditor } from "./query/PictureEditor";
import { Results } from "./results/Results";
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
        {t(searching ? "page.skip.results" : "page.skip.content")}
      </button>
      <header class={searching ? "top top-searching" : "top"}>
        <button
          type="button"
          class="brand"
          onClick={startOver}
          aria-label={t("page.over", { title: config.value.title })}
        >
          <Mark />
          <span>{config.value.title}</span>
        </button>
        {searching && <Ask compact />}
        <div class="top-actions">
          <LanguageChoice />
          <button
            type="button"
            class="icon-button"
            onClick={toggleTheme}
            aria-label={t(theme.value === "dark" ? "page.light" : "page.dark")}
          >
            <Icon name={theme.value === "dark" ? "sun" : "moon"} />
          </button>
          <button type="button" class="icon-button" onClick={() => setAbout(true)} aria-label={t("page.about")}>
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

/** Chooses the page's language; the icon is a list. */
function LanguageChoice() {
  const choose = async (list: HTMLSelectElement) => {
    try {
      await chooseLanguage(list.value);
    } catch {
      list.value = language.value;
      toast.value = { text: t("page.language.failed") };
    }
  };
  return (
    <span class="icon-button language" title={t("page.language")}>
      <Icon name="language" />
      <select
        aria-label={t("page.language")}
        value={language.value}
        onChange={(event) => void choose(event.currentTarget)}
      >
        {LANGUAGES.map((one) => (
          <option key={one} value={one} lang={one}>
            {nameOf(one)}
          </option>
        ))}
      </select>
    </span>
  );
}

function Searched() {
  const current = query.value;
  return (
    <div class="searched">
      <h1 class="visually-hidden">{t("page.results")}</h1>
      <div class="side">
        {current && current.kind !== "words" && (
          <section class={current.kind === "item" ? "query query-item" : "query"} aria-label={t("page.query")}>
            {/* Tools, strokes and their undo history belong to one picture. */}
            <PictureEditor key={current.picture.src ?? current.picture.name} query={current} />
            {current.kind === "item" && (
              <p class="query-name">
                {rich("page.title.more", { name: <strong dir="auto">{current.item?.title || t("item.this")}</strong> })}
              </p>
            )}
          </section>
        )}
        <Insight />
        <Filters />
        {current?.kind === "upload" && <DeviceSwitch isWaitedFor={answer.value === null} />}
      </div>
      <Results />
    </div>
  );
}

function Foot() {
  return (
    <footer class="foot">
      <Notes />
      <p>{t("page.foot")}</p>
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
      if (event.dataTransfer?.types.includes("Files")) expectPicture();
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
        {t("page.drop")}
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
