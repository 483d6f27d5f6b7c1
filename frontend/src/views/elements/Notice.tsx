import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Trouble } from "../../endpoint/api";
import { owner } from "../../owner";
import { DEVICE_FAILED } from "../../search/problems";
import { sendPicture, startOver } from "../../search/search";
import { query } from "../../state";
import { rich, t } from "../../words/messages";
import { forVisitors, retryIn } from "../../words/trouble";
import { Icon, type IconName } from "./icons";

/** What is shown in place of results. */
export function Notice(props: { icon: IconName; title: string; warning?: boolean; children: ComponentChildren }) {
  return (
    <div class="notice-card" role={props.warning ? "alert" : undefined}>
      <span class={props.warning ? "notice-sign notice-sign-warn" : "notice-sign"}>
        <Icon name={props.icon} size={26} />
      </span>
      <h2>{props.title}</h2>
      {props.children}
    </div>
  );
}

/** What went wrong, what would be right, and what to do, from the problem document. */
export function ProblemCard({ problem: told, onRetry }: { problem: Trouble; onRetry: () => Promise<void> }) {
  const problem = owner.value ? told : forVisitors(told);
  const hasPicture = query.value?.kind === "upload" || query.value?.kind === "url";
  const found = problem.found || problem.detail;
  return (
    <Notice icon="alert" title={problem.title} warning>
      {found && <p lang={languageOf(told)}>{asSentence(found)}</p>}
      {problem.valid && (
        <p>{rich("problem.works", { valid: <span lang={languageOf(told)}>{asSentence(problem.valid)}</span> })}</p>
      )}
      {problem.remedy && <p>{asSentence(problem.remedy)}</p>}
      {problem.type === DEVICE_FAILED && (
        <button type="button" class="button button-primary" onClick={() => void sendPicture()}>
          {t("device.send")}
        </button>
      )}
      {mayPass(problem) ? (
        <RetryButton key={told} after={problem.status === 429 ? (problem.retryAfterS ?? 0) : 0} onRetry={onRetry} />
      ) : (
        <button type="button" class="button button-primary" onClick={startOver}>
          {t(hasPicture ? "problem.another" : "problem.anew")}
        </button>
      )}
    </Notice>
  );
}

/** The same in a dialog, which has nothing else to show then. */
export function DialogTrouble({ problem: told }: { problem: Trouble }) {
  const problem = owner.value ? told : forVisitors(told);
  const found = problem.found || problem.detail;
  return (
    <div role="alert">
      <p class="dialog-text">{asSentence(problem.title)}</p>
      {found && (
        <p class="dialog-text" lang={languageOf(told)}>
          {asSentence(found)}
        </p>
      )}
      {problem.remedy && <p class="dialog-text">{asSentence(problem.remedy)}</p>}
    </div>
  );
}

/** Whether the same request may succeed later: no answer, too slow, too many requests, or a failure of the server. */
const mayPass = ({ status, type }: Trouble): boolean =>
  type === DEVICE_FAILED || (status === 0 && !type.startsWith("urn:")) || [408, 429].includes(status) || status >= 500;

/** A button to try again, which is disabled while the visitor has to wait. */
function RetryButton({ after, onRetry }: { after: number; onRetry: () => Promise<void> }) {
  const [left, setLeft] = useState(Math.ceil(after));
  useEffect(() => {
    // By the clock: browsers delay timers in hidden tabs.
    const until = Date.now() + after * 1000;
    const timer = setInterval(() => setLeft(Math.max(Math.ceil((until - Date.now()) / 1000), 0)), 1000);
    return () => clearInterval(timer);
  }, []);
  return (
    <button type="button" class="button button-primary" disabled={left > 0} onClick={() => void onRetry()}>
      {left > 0 ? retryIn(left) : t("problem.retry")}
    </button>
  );
}

/** Servers write English. */
const languageOf = ({ isOurs }: Trouble): string | undefined => (isOurs ? undefined : "en");

/** The documents' sentences have no full stop. */
const asSentence = (text: string): string => (/[.!?…]$/.test(text) ? text : `${text}.`);
