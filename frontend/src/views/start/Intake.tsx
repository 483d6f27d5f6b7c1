import { useRef, useState } from "preact/hooks";
import { readAddress, readTransfer, withScheme } from "../../picture/picture";
import { searchOffered } from "../../search";
import { Icon } from "../elements/icons";
import { CameraDialog, hasLiveCamera, opensCameraFromFile } from "./Camera";

const ACCEPT = "image/*,.heic,.heif,.avif";

/** Pick, photograph, or type an address; large on the start page, one line above results. */
export function Intake({ compact = false }: { compact?: boolean }) {
  const file = useRef<HTMLInputElement>(null);
  const camera = useRef<HTMLInputElement>(null);
  const [live, setLive] = useState(false);
  const take = (input: HTMLInputElement) => {
    const [picked] = input.files ?? [];
    if (picked) void searchOffered({ file: picked, name: picked.name });
    // So that picking the same file again is a change.
    input.value = "";
  };
  const shoot = () => (opensCameraFromFile() ? camera.current?.click() : setLive(true));
  const canShoot = opensCameraFromFile() || hasLiveCamera();
  return (
    <div class={compact ? "intake intake-compact" : "intake"}>
      <input ref={file} type="file" accept={ACCEPT} hidden data-testid="file" onChange={(e) => take(e.currentTarget)} />
      <input
        ref={camera}
        type="file"
        accept="image/*"
        capture="environment"
        hidden
        onChange={(e) => take(e.currentTarget)}
      />
      <div class="intake-buttons">
        <button
          type="button"
          class={compact ? "button" : "button button-primary"}
          onClick={() => file.current?.click()}
        >
          <Icon name="upload" />
          <span>Choose a picture</span>
        </button>
        {canShoot && (
          <button type="button" class="button" onClick={shoot} aria-label="Take a photo">
            <Icon name="camera" />
            <span>Take a photo</span>
          </button>
        )}
      </div>
      <AddressField />
      {live && <CameraDialog onClose={() => setLive(false)} />}
    </div>
  );
}

function AddressField() {
  const [text, setText] = useState("");
  const [wrong, setWrong] = useState(false);
  const submit = async (event: Event) => {
    event.preventDefault();
    const offered = await readAddress(withScheme(text));
    setWrong(!offered);
    if (!offered) return;
    setText("");
    await searchOffered(offered);
  };
  // A picture pasted into the field is a search; text stays text.
  const paste = (event: ClipboardEvent) => {
    if (!event.clipboardData?.files.length) return;
    event.preventDefault();
    event.stopPropagation();
    void readTransfer(event.clipboardData).then(searchOffered);
  };
  return (
    <form class="address" onSubmit={submit} noValidate>
      <label class="visually-hidden" for="address">
        Address of a picture
      </label>
      <input
        id="address"
        type="url"
        inputMode="url"
        autocomplete="off"
        spellcheck={false}
        placeholder="Paste the address of a picture"
        value={text}
        aria-invalid={wrong}
        aria-describedby={wrong ? "address-wrong" : undefined}
        onInput={(event) => {
          setText(event.currentTarget.value);
          setWrong(false);
        }}
        onPaste={paste}
      />
      <button type="submit" class="address-go" aria-label="Search this address" disabled={!text.trim()}>
        <Icon name="arrow" />
      </button>
      {wrong && (
        <p id="address-wrong" class="field-error" role="alert">
          That is no address of a picture. It starts with https:// or http://
        </p>
      )}
    </form>
  );
}
