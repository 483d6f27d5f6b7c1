import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Trouble } from "../../endpoint/api";
import { owner } from "../../owner";
import { startOver } from "../../search";
import { forVisitors } from "../../words/trouble";
import { Icon, type IconName } from "./icons";

/** What stands where results would. */
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

/** What went wrong, what would be right, and what to do: as the problem document says it. */
export function ProblemCard({ problem: told, onRetry }: { problem: Trouble; onRetry: () => Promise<void> }) {
  const problem = owner.value ? told : forVisitors(told);
  const found = problem.found || problem.detail;
  return (
    <Notice icon="alert" title={problem.title} warning>
      {found && <p>{asSentence(found)}</p>}
      {problem.valid && (
        <p>
          <strong>What works:</strong> {asSentence(problem.valid)}
        </p>
      )}
      {problem.remedy && <p>{asSentence(problem.remedy)}</p>}
      {mayPass(problem) ? (
        <RetryButton key={told} after={problem.status === 429 ? (problem.retryAfterS ?? 0) : 0} onRetry={onRetry} />
      ) : (
        <button type="button" class="button button-primary" onClick={startOver}>
          Search with another picture
        </button>
      )}
    </Notice>
  );
}

/** Whether the same request may be answered later: nobody answered, it came too slowly or too often, the server failed. */
const mayPass = ({ status, type }: Trouble): boolean =>
  (status === 0 && !type.startsWith("urn:")) || [408, 429].includes(status) || status >= 500;

/** A button that waits with those who are asked to. */
function RetryButton({ after, onRetry }: { after: number; onRetry: () => Promise<void> }) {
  const [left, setLeft] = useState(Math.ceil(after));
  useEffect(() => {
    const timer = setInterval(() => setLeft((seconds) => Math.max(seconds - 1, 0)), 1000);
    return () => clearInterval(timer);
  }, []);
  return (
    <button type="button" class="button button-primary" disabled={left > 0} onClick={() => void onRetry()}>
      {left > 0 ? `Try again ${inTime(left)}` : "Try again"}
    </button>
  );
}

function inTime(seconds: number): string {
  if (seconds < 100) return `in ${seconds} s`;
  const until = new Date(Date.now() + seconds * 1000);
  const sameDay = until.getDate() === new Date().getDate();
  const format: Intl.DateTimeFormatOptions = sameDay ? { timeStyle: "short" } : { dateStyle: "medium" };
  return `${sameDay ? "at" : "on"} ${new Intl.DateTimeFormat(undefined, format).format(until)}`;
}

/** The documents name facts without a full stop. */
const asSentence = (text: string): string => (/[.!?…]$/.test(text) ? text : `${text}.`);
