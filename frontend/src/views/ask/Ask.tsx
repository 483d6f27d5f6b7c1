import { useEffect, useId, useRef, useState } from "preact/hooks";
import { cutText, TEXT_MAX } from "../../address/link";
import { expectPicture } from "../../device/switch";
import { readAddress, readTransfer, withScheme } from "../../picture/picture";
import { searchOffered, searchWords } from "../../search/search";
import { isLocal, options, query } from "../../state";
import { t } from "../../words/messages";
import { Icon } from "../elements/icons";
import { CameraDialog, hasLiveCamera, opensCameraFromFile } from "./Camera";
import { useSuggestions } from "./suggestions";

export const ACCEPT = "image/*,.heic,.heif,.avif";

/** The one field to ask with: words, the address of a picture, or a picture itself; large on the start page. */
export function Ask({ compact = false }: { compact?: boolean }) {
  const pictures = <Pictures compact={compact} />;
  // An export has neither an index of words nor somebody who fetches an address.
  if (isLocal.value) return <search class={compact ? "ask ask-compact" : "ask"}>{pictures}</search>;
  return (
    <search class={compact ? "ask ask-compact" : "ask"}>
      <Field>{compact && pictures}</Field>
      {!compact && pictures}
    </search>
  );
}

/** Pick or photograph a picture. */
function Pictures({ compact }: { compact: boolean }) {
  const file = useRef<HTMLInputElement>(null);
  const camera = useRef<HTMLInputElement>(null);
  const [live, setLive] = useState(false);
  const take = (input: HTMLInputElement) => {
    const [picked] = input.files ?? [];
    if (picked) void searchOffered({ file: picked, name: picked.name });
    // So that picking the same file again is a change.
    input.value = "";
  };
  const choose = () => {
    expectPicture();
    file.current?.click();
  };
  const shoot = () => {
    expectPicture();
    if (opensCameraFromFile()) camera.current?.click();
    else setLive(true);
  };
  const choices = [
    { icon: "picture", name: t("ask.choose"), act: choose, isMain: true },
    ...(opensCameraFromFile() || hasLiveCamera()
      ? [{ icon: "camera", name: t("ask.photo"), act: shoot, isMain: false } as const]
      : []),
  ] as const;
  return (
    <div class="ask-pictures">
      <input ref={file} type="file" accept={ACCEPT} hidden data-testid="file" onChange={(e) => take(e.currentTarget)} />
      <input
        ref={camera}
        type="file"
        accept="image/*"
        capture="environment"
        hidden
        onChange={(e) => take(e.currentTarget)}
      />
      {choices.map(({ icon, name, act, isMain }) => (
        <button
          key={icon}
          type="button"
          class={compact ? "icon-button" : isMain ? "button button-primary" : "button"}
          title={compact ? name : undefined}
          aria-label={name}
          onClick={act}
        >
          <Icon name={icon} />
          {!compact && <span>{name}</span>}
        </button>
      ))}
      {live && <CameraDialog onClose={() => setLive(false)} />}
    </div>
  );
}

function Field({ children }: { children: preact.ComponentChildren }) {
  const id = useId();
  const asked = options.value.text;
  const [text, setText] = useState(asked);
  const [wrong, setWrong] = useState(false);
  const suggested = useSuggestions(text.length > TEXT_MAX ? "" : text, asked);
  useEffect(() => setText(asked), [asked]);

  const search = async (typed: string) => {
    suggested.close();
    const address = withScheme(typed);
    const offered = await readAddress(address);
    setWrong(!offered && /^(https?|data):/i.test(address));
    if (offered) {
      setText(asked);
      return searchOffered(offered);
    }
    if (/^(https?|data):/i.test(address)) return;
    // Addresses may be longer, and be pasted.
    const words = cutText(typed);
    setText(words);
    await searchWords(words);
  };
  const submit = (event: Event) => {
    event.preventDefault();
    void search((suggested.chosen ?? text).trim());
  };
  const key = (event: KeyboardEvent) => {
    // While a word is composed, as in Chinese and Japanese, the keys choose its characters.
    if (!event.isComposing && suggested.key(event.key)) event.preventDefault();
  };
  // A picture pasted into the field is a search; text stays text.
  const paste = (event: ClipboardEvent) => {
    if (!event.clipboardData?.files.length) return;
    event.preventDefault();
    event.stopPropagation();
    void readTransfer(event.clipboardData).then(searchOffered);
  };
  const clear = (event: { currentTarget: HTMLElement }) => {
    setText("");
    event.currentTarget.closest("form")?.querySelector("input")?.focus();
    if (asked) void searchWords("");
  };
  return (
    <form class="ask-field" onSubmit={submit} noValidate>
      <Icon name="search" />
      <input
        id="ask"
        type="text"
        role="combobox"
        enterkeyhint="search"
        autocomplete="off"
        autocapitalize="off"
        dir="auto"
        aria-label={t("ask.label")}
        placeholder={t(query.value ? "ask.placeholder.refine" : "ask.placeholder")}
        value={suggested.chosen ?? text}
        aria-invalid={wrong}
        aria-describedby={wrong ? `${id}-wrong` : undefined}
        aria-expanded={suggested.texts.length > 0}
        aria-controls={`${id}-list`}
        aria-autocomplete="list"
        aria-activedescendant={suggested.at >= 0 ? `${id}-${suggested.at}` : undefined}
        onInput={(event) => {
          setText(event.currentTarget.value);
          suggested.open();
          setWrong(false);
        }}
        onKeyDown={key}
        onBlur={suggested.close}
        onPaste={paste}
      />
      {text && (
        <button type="button" class="icon-button ask-clear" aria-label={t("ask.clear")} onClick={clear}>
          <Icon name="close" size={18} />
        </button>
      )}
      {children}
      <button type="submit" class="ask-go" aria-label={t("ask.search")} disabled={!text.trim() && !asked}>
        <Icon name="arrow" />
      </button>
      <div
        id={`${id}-list`}
        class="suggestions"
        role="listbox"
        aria-label={t("ask.suggestions")}
        hidden={suggested.texts.length === 0}
      >
        {suggested.texts.map((one, index) => (
          // biome-ignore lint/a11y/useKeyWithClickEvents: the field has the focus and the keys
          // biome-ignore lint/a11y/useFocusableInteractive: the field points to it by aria-activedescendant
          <div
            key={one}
            id={`${id}-${index}`}
            role="option"
            aria-selected={index === suggested.at}
            dir="auto"
            onMouseDown={(event) => event.preventDefault()}
            onClick={() => void search(one)}
          >
            <Icon name="search" size={16} />
            <span>{one}</span>
          </div>
        ))}
      </div>
      {wrong && (
        <p id={`${id}-wrong`} class="field-error" role="alert">
          {t("ask.wrong")}
        </p>
      )}
    </form>
  );
}
