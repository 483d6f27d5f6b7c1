import { useEffect, useRef } from "preact/hooks";
import { isAlone, received, staysHere } from "../../device/switch";
import type { Notice, SearchAnswer } from "../../endpoint/contract";
import { isRejected } from "../../endpoint/feedback";
import { owner } from "../../owner";
import { retry } from "../../search/links";
import { sendPicture, showMore } from "../../search/search";
import { answer, askedAs, isBusy, linkNotice, phase, problem, query } from "../../state";
import { type Key, rich, t } from "../../words/messages";
import { Fetching } from "../elements/DeviceSwitch";
import { ProblemCard } from "../elements/Notice";
import { Asked } from "./Asked";
import { Card } from "./Card";
import { Credit, sharedCredit } from "./ItemFacts";
import { HeldBack, Nothing } from "./Nothing";
import { SurenessBand } from "./SurenessBand";

/** The answer, or what stands in for it. */
export function Results() {
  return (
    <section id="results" class="results" tabIndex={-1} aria-label={t("page.results")} aria-busy={isBusy.value}>
      {linkNotice.value && <p class="notice">{t(linkNotice.value)}</p>}
      {answer.value?.notices?.map((notice) => (
        <p key={notice.text} class="notice">
          {noticeText(notice)}
        </p>
      ))}
      <Asked />
      <Content />
    </section>
  );
}

/** A notice in the visitor's language; for the owner, and from a later server one that the page does not know, as it is. */
function noticeText({ code, text, values }: Notice): string {
  const key: Key = `notice.${code}`;
  const found = t(key, values);
  return owner.value || found === key ? text : found;
}

function Content() {
  const current = answer.value;
  const trouble = phase.value === "failed" ? problem.value : null;
  if (!current) return trouble ? <ProblemCard problem={trouble} onRetry={retry} /> : <Skeleton />;
  return (
    <>
      {trouble && <ProblemCard problem={trouble} onRetry={retry} />}
      {trouble && current.matches.length > 0 && <p class="waiting">{t("results.before")}</p>}
      {/* That nothing was found before says nothing of what went wrong now. */}
      {(!trouble || current.matches.length > 0) && <Answer current={current} />}
    </>
  );
}

function Answer({ current }: { current: SearchAnswer }) {
  if (current.safety?.unsafe) return <HeldBack key={current.query.vector} />;
  if (current.matches.length === 0) return <Nothing current={current} />;
  const shared = sharedCredit(current.matches.map(({ item }) => item));
  const matches = current.matches.filter((match) => !isRejected(match.item.id));
  return (
    <div class={isBusy.value || phase.value === "failed" ? "stale" : undefined}>
      <SurenessBand current={current} />
      <ol class="grid">
        {matches.map((match) => (
          <li key={match.item.id}>
            <Card match={match} credited={shared !== null} />
          </li>
        ))}
      </ol>
      {shared && <div class="credit-shared">{rich("card.licensed", { credit: <Credit item={shared} /> })}</div>}
      <p class="shown-count">{shownOf(current, matches.length)}</p>
      <More current={current} />
    </div>
  );
}

/** Leads to the matches behind those that are shown, which belong to the question that was answered. */
function More({ current }: { current: SearchAnswer }) {
  const place = useRef<HTMLDivElement>(null);
  const shown = useRef<number | null>(null);
  const grid = () => place.current?.parentElement?.querySelector(".grid");
  const more = async () => {
    shown.current = grid()?.children.length ?? null;
    await showMore();
  };
  // The button is disabled meanwhile and may be gone, and the focus with it: it goes on to what is new.
  useEffect(() => {
    if (isBusy.value || shown.current === null) return;
    const news = grid()?.children[shown.current] ?? place.current;
    if (document.activeElement === document.body) {
      news?.querySelector<HTMLElement>("h3 a, button")?.focus({ preventScroll: news !== place.current });
    }
    shown.current = null;
  });
  const trouble = phase.value === "done" ? problem.value : null;
  return (
    <div ref={place} class="more">
      {trouble ? (
        <ProblemCard problem={trouble} onRetry={more} />
      ) : (
        current.next &&
        phase.value !== "failed" && (
          <button type="button" class="button" disabled={isBusy.value} onClick={() => void more()}>
            {t("results.more")}
          </button>
        )
      )}
    </div>
  );
}

/** How many there are to see, of how many. */
function shownOf({ matches, total, index }: SearchAnswer, shown: number): string {
  if (typeof total === "number") return t("results.of", { shown, count: total - (matches.length - shown) });
  const ofAll = askedAs.value === "picture" || askedAs.value === "item";
  return ofAll ? t("results.nearest", { shown, count: index.images }) : t("results.shown", { count: shown });
}

/** The model that looks is still to come: how much of it is there, and another way that needs none. */
function ModelWaitedFor() {
  const current = query.value;
  if (received.value === null || !current || !staysHere(current.picture)) return null;
  return (
    <div class="device waiting">
      <p>{t("device.waiting")}</p>
      <Fetching>
        {!isAlone.value && (
          <button type="button" class="button" onClick={() => void sendPicture()}>
            {t("device.instead")}
          </button>
        )}
      </Fetching>
    </div>
  );
}

/** Where the cards will be. After a pause of its owner's free server, the first answer takes some seconds. */
function Skeleton() {
  const words = useRef<HTMLParagraphElement>(null);
  useEffect(() => {
    const timer = setTimeout(() => {
      if (words.current) words.current.textContent = t("results.waking");
    }, 4000);
    return () => clearTimeout(timer);
  }, []);
  return (
    <>
      <p class="waiting" ref={words} role="status">
        {t("results.looking")}
      </p>
      <ModelWaitedFor />
      <ol class="grid" aria-hidden="true">
        {Array.from({ length: 8 }, (_, index) => (
          <li key={index} class="card card-skeleton">
            <span class="card-picture" />
            <span class="line" />
            <span class="line line-short" />
          </li>
        ))}
      </ol>
    </>
  );
}
