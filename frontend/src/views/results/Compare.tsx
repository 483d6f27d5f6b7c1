import { useEffect, useId, useState } from "preact/hooks";
import { permit, staysHere } from "../../device/switch";
import type { Trouble } from "../../endpoint/api";
import type { CompareAnswer, Match, Picture } from "../../endpoint/contract";
import { pictureNow } from "../../search/ask";
import { problemOf } from "../../search/problems";
import { answer, api, askedAs, query } from "../../state";
import { formatDecimal } from "../../words/format";
import { t } from "../../words/messages";
import { surenessOfMatch } from "../../words/sureness";
import { Dialog } from "../elements/Dialog";
import { DialogTrouble } from "../elements/Notice";

/** Two pictures over each other: a slider between them, and a switch for where they differ. */
export function Compare({ match, onClose }: { match: Match; onClose: () => void }) {
  const [found, setFound] = useState<CompareAnswer | null>(null);
  const [trouble, setTrouble] = useState<Trouble | null>(null);
  const asked = query.value?.picture;
  const [isAsked, setIsAsked] = useState(asked !== undefined && staysHere(asked));
  const send = () => {
    if (asked) permit(asked);
    setIsAsked(false);
  };
  useEffect(() => {
    if (isAsked) return;
    const controller = new AbortController();
    const ask = async () => {
      try {
        const second: Picture = { item: match.item.id };
        setFound(await api.value.compare({ first: await pictureNow(), second }, controller.signal));
      } catch (reason) {
        if (!controller.signal.aborted) setTrouble(problemOf(reason));
      }
    };
    void ask();
    return () => controller.abort();
  }, [match.item.id, isAsked]);
  return (
    <Dialog title={t("compare.title")} wide onClose={onClose}>
      {isAsked ? (
        <>
          <p class="dialog-text">{t("device.send.compare")}</p>
          <button type="button" class="button button-primary" onClick={send}>
            {t("device.send")}
          </button>
        </>
      ) : trouble ? (
        <DialogTrouble problem={trouble} />
      ) : (
        <>
          {found && <Pair found={found} name={match.item.title || t("why.match")} />}
          <p class="dialog-text" role="status">
            {found ? <strong>{t(`compare.${found.verdict}`)}</strong> : t("why.comparing")}
            {found && <span class="muted"> · {numbers(found, match)}</span>}
          </p>
        </>
      )}
    </Dialog>
  );
}

/** How alike the two are, and how sure that makes of it: as the match's card says it, which knows how photos differ. */
function numbers(found: CompareAnswer, match: Match): string {
  const [words, percent] = surenessOfMatch(match.confidence, answer.value, askedAs.value);
  const similarity = formatDecimal(match.similarity ?? found.similarity, 3);
  if (percent) return t("compare.numbers", { similarity, percent });
  return [words, `${t("card.similarity")} ${similarity}`].filter(Boolean).join(" · ");
}

function Pair({ found, name }: { found: CompareAnswer; name: string }) {
  const slider = useId();
  const [share, setShare] = useState(50);
  const [differing, setDiffering] = useState(false);
  const [first, second] = [found.first, found.second].map((base64) => `data:image/jpeg;base64,${base64}`);
  if (!found.is_aligned) {
    return (
      <>
        <div class="pair">
          {[
            [first, t("page.query")],
            [second, name],
          ].map(([src, caption]) => (
            <figure key={caption}>
              <img class="compared" src={src} alt={caption} />
              <figcaption dir="auto">{caption}</figcaption>
            </figure>
          ))}
        </div>
        <p class="dialog-text muted">{t("compare.apart")}</p>
      </>
    );
  }
  return (
    <div class="overlay">
      <div class="overlaid" style={{ "--share": `${share}%` }}>
        <img src={second} alt={name} />
        <img class="overlaid-first" src={first} alt={t("page.query")} />
        {differing && found.difference && (
          <img
            class="overlaid-difference"
            src={`data:image/png;base64,${found.difference}`}
            alt={t("compare.difference.key")}
          />
        )}
        {!differing && <span class="overlaid-line" aria-hidden="true" />}
      </div>
      <p class="overlay-names" aria-hidden="true">
        <span>{t("page.query")}</span>
        <span dir="auto">{name}</span>
      </p>
      <label class="visually-hidden" for={slider}>
        {t("compare.slider")}
      </label>
      <input
        id={slider}
        type="range"
        min="0"
        max="100"
        dir="ltr"
        value={share}
        disabled={differing}
        onInput={(event) => setShare(event.currentTarget.valueAsNumber)}
      />
      {found.difference && (
        <label class="check">
          <input
            type="checkbox"
            role="switch"
            aria-checked={differing}
            checked={differing}
            onChange={() => setDiffering(!differing)}
          />
          <span class="check-name">{t("compare.difference")}</span>
        </label>
      )}
      {differing && <p class="muted">{t("compare.difference.key")}</p>}
    </div>
  );
}
