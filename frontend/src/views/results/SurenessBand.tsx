import type { SearchAnswer } from "../../endpoint/contract";
import { askedAs, options, phase, query, subject, toast } from "../../state";
import { t } from "../../words/messages";
import { type Band, bandOf } from "../../words/sureness";
import { Icon } from "../elements/icons";

/** How sure the answer is and what would help, above the matches and never instead of them. */
export function SurenessBand({ current }: { current: SearchAnswer }) {
  const band = bandOf(current, askedAs.value, options.value.sort !== "likeness");
  return (
    <header class="band" data-level={band.level}>
      {band.level !== null && <Marks level={band.level} />}
      <div class="band-words">
        <h2>{band.title}</h2>
        <p>{band.advice}</p>
      </div>
      {(subject.value || query.value?.kind === "words") && (
        <button
          type="button"
          class="button button-quiet"
          aria-label={t("results.copy")}
          // Until there is an answer, the address bar holds no link to it.
          disabled={phase.value !== "done"}
          onClick={() => void copyLink()}
        >
          <Icon name="link" />
          <span>{t("results.copy")}</span>
        </button>
      )}
    </header>
  );
}

/** Three marks; the surer the words, the more are filled. */
function Marks({ level }: { level: NonNullable<Band["level"]> }) {
  return (
    <span class="band-marks" aria-hidden="true">
      {[1, 2, 3].map((mark) => (
        <span key={mark} class={mark <= level ? "mark-filled" : undefined} />
      ))}
    </span>
  );
}

async function copyLink(): Promise<void> {
  try {
    await navigator.clipboard.writeText(location.href);
    toast.value = { text: t(subject.value && "vector" in subject.value ? "results.copied.vector" : "results.copied") };
  } catch {
    toast.value = { text: t("results.notCopied") };
  }
}
