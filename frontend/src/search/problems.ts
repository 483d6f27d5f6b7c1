/** What went wrong, in the page's words. */
import { fromBase64 } from "../bytes/base64";
import { DeviceTrouble } from "../device/device";
import { isAlone } from "../device/switch";
import { LOOK_BYTES } from "../device/vector";
import { Failure, type Trouble } from "../endpoint/api";
import type { SearchRequest } from "../endpoint/contract";
import { stats, wordsAlone } from "../state";
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

/** Why a search was refused; in the page's own words if it knows better than a server what the visitor did. */
export function refusalOf(error: unknown, { vector, examples = [] }: SearchRequest): Trouble {
  const problem = problemOf(error);
  if (problem.type !== "urn:visor:bad_request") return problem;
  const text = wordsAlone.value;
  if (text && !/[\p{L}\p{N}]/u.test(text)) return { ...problem, ...ours("wordless", text) };
  const vectors = [vector, ...examples.map((one) => one.vector)];
  return vectors.every((one) => !one || isWhole(one)) ? problem : { ...problem, ...ours("damaged") };
}

const ours = (what: "wordless" | "damaged", text = ""): Partial<Trouble> => ({
  title: t(`problem.${what}`),
  detail: "",
  found: t(`problem.${what}.found`, { text }),
  valid: "",
  remedy: t(`problem.${what}.remedy`),
  isOurs: true,
});

/** Whether a link's vector has as many numbers as this index needs, with or without a look after it. */
function isWhole(vector: string): boolean {
  const size = 2 * (stats.value?.model.dimension ?? 0);
  try {
    return [size, size + LOOK_BYTES].includes(fromBase64(vector).length);
  } catch {
    return false;
  }
}

/** What the device could not do, and that the server may do it. */
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
