import { isKept, loading } from "../../local/localIndex";
import { formatAmount } from "../../words/format";
import { t } from "../../words/messages";

/** How much of an export has arrived, and whether it stays. */
export function Loading() {
  const now = loading.value;
  if (!now) return isKept.value === false ? <p class="drop-note">{t("local.unkept")}</p> : null;
  const amount = (bytes: number) => formatAmount("model_bytes", bytes);
  const text = t("local.loading", { received: amount(now.received), total: amount(now.total) });
  return (
    <p class="drop-note">
      <progress value={now.received} max={now.total} aria-label={text} />
      <span>{text}</span>
    </p>
  );
}
