/** One value an item to filter and count by, and the conditions that a filter puts on it (`index/format/attributes.py`). */
import type { Condition } from "../../endpoint/contract";
import { Refusal } from "../refusal";
import type { AttributeType } from "./manifest";

export const NO_DATE = -(2 ** 31);
const DAY_MS = 86_400_000;
const FLAG_NAMES = ["false", "true"];

/** The values (n,) of one attribute: numbers of `names` from 1 (keyword, flag), numbers with NaN, or days since 1970. */
export interface AttributeColumn {
  type: AttributeType;
  values: ArrayLike<number>;
  names: readonly string[];
}

/** Of items that do not have it. */
export const noAttribute = (type: AttributeType, count: number): AttributeColumn => ({
  type,
  values: type === "number" ? new Float64Array(count).fill(Number.NaN) : new Int32Array(count).fill(nothing(type)),
  names: type === "flag" ? FLAG_NAMES : [],
});

/** Orders texts by code points, as Python does: JavaScript orders by UTF-16, an emoji before a wide letter. */
export function byCodePoints(a: string, b: string): number {
  for (let at = 0; ; at += 1) {
    const [mine, theirs] = [a.codePointAt(at) ?? -1, b.codePointAt(at) ?? -1];
    if (mine !== theirs || mine < 0) return mine - theirs;
  }
}

const nothing = (type: AttributeType): number => (type === "date" ? NO_DATE : 0);

export function has({ type, values }: AttributeColumn, row: number): boolean {
  const value = values[row] as number;
  return type === "number" ? !Number.isNaN(value) : value !== nothing(type);
}

/**
 * What tells of a row whether it meets a condition. Raises `Refusal` for one that asks for what the type does not have.
 *
 * @param name Of the attribute, for errors.
 */
export function meets(column: AttributeColumn, name: string, condition: Condition): (row: number) => boolean {
  const { values } = column;
  const tests: ((row: number) => boolean)[] = [];
  if (condition.any?.length) tests.push(isOne(column, name, condition.any));
  if (condition.none?.length) {
    const unwanted = isOne(column, name, condition.none);
    tests.push((row) => !unwanted(row));
  }
  if (typeof condition.min === "number" || typeof condition.min === "string") {
    const [low] = span(column, name, condition.min);
    tests.push((row) => has(column, row) && (values[row] as number) >= low);
  }
  if (typeof condition.max === "number" || typeof condition.max === "string") {
    const [, high] = span(column, name, condition.max);
    tests.push((row) => has(column, row) && (values[row] as number) <= high);
  }
  if (typeof condition.missing === "boolean") tests.push((row) => has(column, row) !== condition.missing);
  return (row) => tests.every((test) => test(row));
}

function isOne(column: AttributeColumn, name: string, wanted: readonly string[]): (row: number) => boolean {
  const { type, values, names } = column;
  if (type === "number" || type === "date") {
    const spans = wanted.map((text) => span(column, name, text));
    return (row) =>
      has(column, row) &&
      spans.some(([low, high]) => (values[row] as number) >= low && (values[row] as number) <= high);
  }
  const named = type === "flag" ? wanted.map((text) => flagName(name, text)) : wanted;
  const passes = [false, ...names.map((known) => named.includes(known))];
  return (row) => passes[values[row] as number] ?? false;
}

/** The least and the greatest value that a number or date means. */
function span({ type, values }: AttributeColumn, name: string, text: number | string): [low: number, high: number] {
  if (type === "date") {
    if (typeof text === "number") throw unfit(name, text, "a date: '2024', '2024-05' or '2024-05-31'");
    return [bound(text, false), bound(text, true)];
  }
  if (type !== "number") throw unfit(name, text, `a ${type}, which has no range: use any, none or missing`);
  const number = typeof text === "string" ? numberOf(text) : text;
  if (number === null || Number.isNaN(number)) throw unfit(name, text, "a number");
  // Rounded as the column is, so that 19.99 is within 19.99 to 19.99; beyond all values stays beyond.
  const limit = values instanceof Float32Array ? 3.4028234663852886e38 : Number.MAX_VALUE;
  const within = Math.min(limit, Math.max(-limit, number));
  const value = values instanceof Float32Array ? Math.fround(within) : within;
  return [value, value];
}

const FLAGS = new Map([
  ...["true", "yes", "1", "on", "y"].map((word) => [word, "true"] as const),
  ...["false", "no", "0", "off", "n"].map((word) => [word, "false"] as const),
]);

/** Spaces at both ends. `\s` has U+FEFF and lacks U+0085, other than in Python. */
const ENDS = /^\p{White_Space}+|\p{White_Space}+$/gu;

function flagName(name: string, text: string): string {
  const flag = FLAGS.get(text.replace(ENDS, "").toLowerCase());
  if (!flag) throw unfit(name, text, "a flag: true or false");
  return flag;
}

/** The digits of any script, as Python reads them: they follow each other, from a place that ends with 0 or 6. */
function plainDigit(digit: string): string {
  const code = digit.normalize("NFKC").codePointAt(0) ?? 0;
  const start = code & ~15;
  return String(code - start - (/\p{Nd}/u.test(String.fromCodePoint(start)) ? 0 : 6));
}

const NUMBER = /^([-+]?\d[\d.,]*(?:[eE][-+]?\d+)?)(?:\p{White_Space}*[^\d\p{White_Space}.,].*)?$/su;
const THOUSANDS = /^[-+]?(?!0)\d{1,3}([.,])\d{3}(?:\1\d{3})*$/;

/** The number that a text begins with, a unit behind it or not ('12.5 kg', '1,5', '1.234,50'); null: none. */
export function numberOf(text: string): number | null {
  let digits = NUMBER.exec(text.replace(ENDS, "").replace(/(?!\d)\p{Nd}/gu, plainDigit))?.[1]?.replace(/[.,]+$/, "");
  if (!digits) return null;
  if (digits.includes(",") && digits.includes(".")) {
    digits = digits.replaceAll(digits.lastIndexOf(",") < digits.lastIndexOf(".") ? "," : ".", "");
  } else if (THOUSANDS.test(digits) && (digits.includes(",") || digits.split(".").length > 2)) {
    digits = digits.replace(/[.,]/g, "");
  }
  const number = Number(digits.replace(",", "."));
  return Number.isFinite(number) ? number : null;
}

/** The first or last day (since 1970) of an ISO 8601 year, month, date or date-time. */
export function bound(text: string, isLast: boolean): number {
  const [, year, month, day] = /^(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?$/.exec(text.slice(0, 10)) ?? [];
  const date = new Date(0);
  if (year) date.setUTCFullYear(Number(year), month ? Number(month) - 1 : 0, day ? Number(day) : 1);
  const isReal = year && (!month || date.getUTCMonth() === Number(month) - 1) && (!day || date.getUTCDate() === +day);
  if (!isReal) {
    throw new Refusal(
      `Date '${text}' cannot be read`,
      "ISO 8601: 2024, 2024-05, 2024-05-31 or 2024-05-31T12:00:00Z",
      "Correct the date",
    );
  }
  if (isLast && !month) date.setUTCFullYear(Number(year) + 1, 0, 0);
  else if (isLast && !day) date.setUTCMonth(Number(month), 0);
  return Math.floor(date.getTime() / DAY_MS);
}

export const isoDay = (day: number): string => new Date(day * DAY_MS).toISOString().slice(0, 10);

const unfit = (name: string, found: unknown, valid: string): Refusal =>
  new Refusal(
    `The condition on ${name} names ${JSON.stringify(found)?.slice(0, 80)}`,
    `${name} is ${valid}`,
    "Correct the condition",
  );
