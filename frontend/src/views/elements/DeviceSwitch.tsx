import { useId } from "preact/hooks";
import { isAble } from "../../device/device";
import {
  canSwitch,
  described,
  failure,
  isAlone,
  isKept,
  isOn,
  received,
  toFetch,
  turnOff,
  turnOn,
} from "../../device/switch";
import { formatAmount } from "../../words/format";
import { t } from "../../words/messages";
import { Icon } from "./icons";

/** Who looks at a picture, what of it leaves this device, and a switch for it where the device is able. */
export function DeviceSwitch() {
  const note = useId();
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
      {isOn.value && received.value !== null && <Fetching received={received.value} />}
      <p class="drop-note" id={note} role={failure.value ? "alert" : undefined}>
        <Icon name={failure.value ? "alert" : "shield"} size={16} />
        <span>{whatIsSent()}</span>
      </p>
    </div>
  );
}

function Fetching({ received: bytes }: { received: number }) {
  const size = described.value?.model.size_bytes ?? 0;
  const amount = (part: number) => formatAmount("model_bytes", part);
  const text =
    bytes < size ? t("device.fetching", { received: amount(bytes), size: amount(size) }) : t("device.starting");
  return (
    <div class="device-fetching">
      <progress value={bytes} max={size} aria-label={t("device.switch")} aria-valuetext={text} />
      <span>{text}</span>
      <button type="button" class="text-button" onClick={turnOff}>
        {t("device.cancel")}
      </button>
    </div>
  );
}

/** What leaves this device of a picture, and what it takes that it does not. */
function whatIsSent(): string {
  const size = formatAmount("model_bytes", toFetch.value);
  const offer = toFetch.value > 0 ? t("device.offer", { size }) : "";
  if (isAlone.value) {
    if (!isAble() || described.value === null) return t("device.cannot");
    return [t("start.local"), offer].join(" ").trim();
  }
  if (isOn.value) return [t("device.on"), isKept.value ? "" : t("device.unkept")].join(" ").trim();
  if (failure.value) return t("device.off", { why: t(`device.${failure.value}.found` as "device.unable.found") });
  const sent = t("start.private");
  if (described.value && !isAble()) return `${sent} ${t("device.cannot")}`;
  if (!canSwitch.value) return sent;
  return `${sent} ${offer || t("device.ready")}`;
}
