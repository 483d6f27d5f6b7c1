import type { SearchAnswer } from "../../endpoint/contract";
import { askedAs, query, subject, toast } from "../../state";
import { type Band, bandOf } from "../../words/sureness";
import { Icon } from "../elements/icons";

/** How sure the answer is and what would help, above the matches and never in their place. */
export function SurenessBand({ current }: { current: SearchAnswer }) {
  const band = bandOf(current, askedAs.value);
  return (
    <header class="band" data-level={band.level}>
      <Marks level={band.level} />
      <div class="band-words">
        <h2>{band.title}</h2>
        <p>{band.advice}</p>
      </div>
      {subject.value && (
        <button type="button" class="button button-quiet" aria-label="Copy link" onClick={() => void copyLink()}>
          <Icon name="link" />
          <span>Copy link</span>
        </button>
      )}
    </header>
  );
}

/** Three marks, as many filled as the words are sure. */
function Marks({ level }: { level: Band["level"] }) {
  return (
    <span class="band-marks" aria-hidden="true">
      {[1, 2, 3].map((mark) => (
        <span key={mark} class={mark <= level ? "mark-filled" : undefined} />
      ))}
    </span>
  );
}

async function copyLink(): Promise<void> {
  const held = query.value?.kind === "item" ? "" : " It holds the picture's vector, not the picture.";
  try {
    await navigator.clipboard.writeText(location.href);
    toast.value = { text: `Link copied.${held}` };
  } catch {
    toast.value = { text: "The browser did not allow copying. The link is in the address bar." };
  }
}
