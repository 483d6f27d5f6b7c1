import { useEffect, useState } from "preact/hooks";
import type { SearchAnswer } from "../../endpoint/contract";
import { callHarmless } from "../../endpoint/feedback";
import { countFilters } from "../../filters";
import { type Loosening, loosenings } from "../../loosen";
import { changeOptions } from "../../search/search";
import { can, canEdit, options, subject } from "../../state";
import { t } from "../../words/messages";
import { blankSentence } from "../../words/sureness";
import { Notice } from "../elements/Notice";

/** An answer without matches: why, and what to do about it. */
export function Nothing({ current }: { current: SearchAnswer }) {
  const { text, filters } = options.value;
  const count = countFilters(filters);
  if (current.query.blank) {
    return (
      <Notice icon="picture" title={blankSentence(current.query.blank)}>
        <p>{t("blank.advice")}</p>
      </Notice>
    );
  }
  if (count === 0 && !text) {
    return (
      <Notice icon="nothing" title={t("empty.catalogue")}>
        <p>{t("empty.catalogue.text")}</p>
      </Notice>
    );
  }
  const isWords = count === 0;
  return (
    <Notice icon={isWords ? "nothing" : "filter"} title={t(isWords ? "empty.words" : "empty.filters")}>
      <p>{t(isWords ? "empty.words.text" : "empty.filters.text")}</p>
      {count > 0 && <Loosen key={current.timing_ms["total"]} />}
      {count > 0 && (
        <button type="button" class="button" onClick={() => void changeOptions({ filters: {} })}>
          {t("empty.filters.clear")}
        </button>
      )}
    </Notice>
  );
}

/** Which filter to remove, and what that would leave. */
function Loosen() {
  const [found, setFound] = useState<readonly Loosening[]>([]);
  useEffect(() => {
    const controller = new AbortController();
    // A courtesy: without it, all filters can still be cleared.
    loosenings(controller.signal).then(setFound, () => undefined);
    return () => controller.abort();
  }, []);
  if (found.length === 0) return null;
  return (
    <ul class="loosen" aria-label={t("empty.loosen")}>
      {found.map(({ name, count, change }) => (
        <li key={name}>
          <button type="button" class="chip" onClick={() => void changeOptions(change)}>
            {t("empty.without", { name, count })}
          </button>
        </li>
      ))}
    </ul>
  );
}

export function HeldBack() {
  return (
    <Notice icon="alert" title={t("unsafe.title")}>
      <p>{t(canEdit.value ? "unsafe.text.edit" : "unsafe.text")}</p>
      <Harmless />
    </Notice>
  );
}

/** Tells the owner that it should not have been held back. */
function Harmless() {
  const [said, setSaid] = useState<"no" | "sending" | "yes">("no");
  const asked = subject.value;
  if (!asked || !can("feedback")) return null;
  if (said === "yes") return <p>{t("unsafe.kept")}</p>;
  const say = async () => {
    setSaid("sending");
    setSaid((await callHarmless(asked)) ? "yes" : "no");
  };
  return (
    <button type="button" class="button" disabled={said === "sending"} onClick={() => void say()}>
      {t("unsafe.harmless")}
    </button>
  );
}
