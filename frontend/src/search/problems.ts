/** What went wrong, as the page says it. */
import { DeviceTrouble } from "../device/device";
import { isAlone } from "../device/switch";
import { Failure, type Trouble } from "../endpoint/api";
import { t } from "../words/messages";

/** What the server may do in the device's place. */
export const DEVICE_FAILED = "urn:visor:device_failed";

export const OTHER_MODEL = "urn:visor:other_model";
export const UNKNOWN_HANDLE = "urn:visor:unknown_handle";

export function problemOf(error: unknown): Trouble {
  if (error instanceof Failure) return error.problem;
  if (error instanceof DeviceTrouble) return troubleOfDevice(error);
  return {
    type: "about:blank",
    title: t("problem.bug"),
    status: 0,
    detail: String(error),
    found: String(error),
    remedy: t("problem.bug.remedy"),
    isOurs: true,
  };
}

/** What the device could not do, and that the server may. */
function troubleOfDevice({ reason, size }: DeviceTrouble): Trouble {
  const [width, height] = size ?? [0, 0];
  const remedy = isAlone.value ? "local.picture.remedy" : "device.send.remedy";
  return {
    type: reason === "little" ? "urn:visor:too_little" : isAlone.value ? "about:blank" : DEVICE_FAILED,
    title: t(`device.${reason}`),
    status: 0,
    detail: "",
    found: size ? t("device.little.found", { width, height }) : t(`device.${reason}.found` as "device.unable.found"),
    remedy: t(reason === "little" ? "device.little.remedy" : remedy),
    isOurs: true,
  };
}

export const otherModel = (): Trouble => ({
  type: OTHER_MODEL,
  title: t("problem.model"),
  status: 0,
  detail: "",
  found: t("problem.model.found"),
  remedy: t("problem.model.remedy"),
  isOurs: true,
});
