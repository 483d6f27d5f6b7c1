import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";
import { isAble } from "../../device/able";
import {
  canSwitch,
  failure,
  isAlone,
  isKept,
  isOn,
  isUndecided,
  modelBytes,
  offer,
  received,
  toFetch,
  turnOff,
  turnOn,
} from "../../device/switch";
import { formatAmount } from "../../words/format";
import { t } from "../../words/messages";
import { Icon } from "./icons";

/**
 * What embeds a picture, what of it leaves this device, and a switch for this if the device is able.
 *
 * @param isWaitedFor Whether the results' place shows the model's download already.
 */
export function DeviceSwitch({ isWaitedFor = false }: { isWaitedFor?: boolean }) {
  const note = useId();
  const said = whatIsSent();
  return (
    <div class="device">
      {canSwitch.value && (
        <label class="check">
          <input
            type="checkbox"
            role="switch"
            aria-checked={isOn.value}
            aria-describedby={note}
            checked={isOn.value}
            onChange={() => (isOn.value ? turnOff() : void turnOn())}
          />
          <span class="check-name">{t("device.switch")}</span>
        </label>
      )}
      {!isWaitedFor && (
        <Fetching>
          {!isAlone.value && (
            <button type="button" class="text-button" onClick={turnOff}>
              {t("device.cancel")}
            </button>
          )}
        </Fetching>
      )}
      {said && (
        <p class="drop-note" id={note} role={failure.value ? "alert" : undefined}>
          <Icon name={failure.value ? "alert" : "shield"} size={16} />
          <span>{said}</span>
        </p>
      )}
    </div>
  );
}

/** How much of the model has arrived, during the download, and what can be done meanwhile. */
export function Fetching({ children }: { children?: ComponentChildren }) {
  const bytes = received.value;
  if (bytes === null) return null;
  const total = modelBytes.value;
  const amount = (part: number) => formatAmount("model_bytes", part);
  const text =
    bytes < total ? t("device.fetching", { received: amount(bytes), size: amount(total) }) : t("device.starting");
  return (
    <div class="device-fetching">
      <progress value={bytes} max={total} aria-label={t("device.switch")} aria-valuetext={text} />
      <span>{text}</span>
      {children}
    </div>
  );
}

/** What of a picture leaves this device, and what is needed so that nothing does. */
function whatIsSent(): string {
  const size = formatAmount("model_bytes", toFetch.value);
  const first = toFetch.value > 0 && received.value === null ? t("device.first", { size }) : "";
  if (isAlone.value) {
    if (!isAble() || offer.value === null) return t("device.cannot");
    return [t("start.local"), first && t("device.offer", { size })].join(" ").trim();
  }
  if (isUndecided()) return "";
  if (isOn.value) return [t("device.on"), first, isKept.value ? "" : t("device.unkept")].filter(Boolean).join(" ");
  if (failure.value) return t("device.off", { why: t(`device.${failure.value}.found` as "device.unable.found") });
  const sent = t("start.private");
  if (offer.value && !isAble()) return `${sent} ${t("device.cannot")}`;
  if (!canSwitch.value) return sent;
  return `${sent} ${toFetch.value > 0 ? t("device.offer", { size }) : t("device.ready")}`;
}
