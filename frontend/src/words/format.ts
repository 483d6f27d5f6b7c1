/** Numbers, prices, dates and places as people read them in the page's language. */
import { locale } from "./messages";

/** A price, with its currency where one is known and real. */
export function formatPrice(price: number, currency: string | null | undefined, language = locale.value): string {
  const whole = Number.isInteger(price) && price >= 100;
  if (currency) {
    try {
      const digits = whole ? { minimumFractionDigits: 0 } : {};
      return new Intl.NumberFormat(language, { style: "currency", currency, ...digits }).format(price);
    } catch {
      return `${new Intl.NumberFormat(language).format(price)} ${currency}`;
    }
  }
  return new Intl.NumberFormat(language, { maximumFractionDigits: 2 }).format(price);
}

/** The greatest price below another: by the smallest coin of its currency, else by a hundredth. */
export function coinBefore(price: number, currency: string | null): number {
  let digits = 2;
  try {
    const { maximumFractionDigits } = new Intl.NumberFormat("en", {
      style: "currency",
      currency: currency ?? "",
    }).resolvedOptions();
    digits = maximumFractionDigits ?? digits;
  } catch {
    // A currency that is none.
  }
  return Number((price - 10 ** -digits).toFixed(digits));
}

/** A price as a feed writes it (`40 EUR`), with another's currency where it names none; what it wrote otherwise. */
export function formatPriceText(text: string, currency: string | null | undefined, language = locale.value): string {
  const [, price, own] = /^(\d+(?:[.,]\d\d)?) ?([A-Z]{3})?$/.exec(text.trim()) ?? [];
  return price ? formatPrice(Number(price.replace(",", ".")), own ?? currency, language) : text;
}

/** The country's name for an ISO 3166-1 code; what a source wrote otherwise. */
export function formatCountry(country: string, language = locale.value): string {
  if (!/^[A-Za-z]{2}$/.test(country)) return country;
  try {
    return new Intl.DisplayNames([language], { type: "region" }).of(country.toUpperCase()) ?? country;
  } catch {
    return country;
  }
}

export const formatCount = (count: number, language = locale.value): string =>
  new Intl.NumberFormat(language).format(count);

/** A probability as a whole percentage that never says 0 % or 100 %: nothing here is that sure. */
export function formatPercent(probability: number, language = locale.value): string {
  const whole = (share: number) => formatShare(share, language, 0);
  if (probability < 0.01) return `<\u00a0${whole(0.01)}`;
  return probability > 0.99 ? `>\u00a0${whole(0.99)}` : whole(probability);
}

/** A measured share with one decimal; unlike a probability it may well be all. */
export const formatShare = (share: number, language = locale.value, digits = 1): string =>
  new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: digits }).format(share);

/** A number with so many decimals. */
export const formatDecimal = (value: number, digits: number, language = locale.value): string =>
  new Intl.NumberFormat(language, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);

/** A number with all of its decimals. */
export const formatNumber = (value: number, language = locale.value): string =>
  new Intl.NumberFormat(language, { maximumFractionDigits: 20 }).format(value);

/** The day of an ISO 8601 date or time; what a source wrote otherwise, or of a day that no month has. */
export function formatDay(date: string, language = locale.value): string {
  const [, year, month, day] = /^(\d{4})-(\d\d)-(\d\d)/.exec(date)?.map(Number) ?? [];
  if (!year || !month || !day) return date;
  const at = new Date(2000, 0, 1);
  // Given to the constructor, the years below 100 are those of the 20th century.
  at.setFullYear(year, month - 1, day);
  if (at.getMonth() !== month - 1) return date;
  return new Intl.DateTimeFormat(language, { dateStyle: "medium" }).format(at);
}

/** The day before one in ISO 8601; the same where there is none to tell. */
export function dayBefore(date: string): string {
  const day = new Date(date);
  day.setUTCDate(day.getUTCDate() - 1);
  return Number.isNaN(day.getTime()) ? date : day.toISOString().slice(0, 10);
}

const BYTES = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"] as const;
const SECONDS = [
  ["hour", 3600],
  ["minute", 60],
  ["second", 1],
] as const;

/** An amount of a free allowance, in the unit that its name ends with (`_bytes`, `_s`), else a count. */
export function formatAmount(resource: string, amount: number, language = locale.value): string {
  const inUnit = (value: number, unit: string, unitDisplay: "short" | "long" = "short") => {
    const digits = { maximumFractionDigits: value >= 10 ? 0 : 1 };
    return new Intl.NumberFormat(language, { style: "unit", unit, unitDisplay, ...digits }).format(value);
  };
  if (resource.endsWith("_bytes")) {
    const power = Math.min(Math.floor(Math.log2(Math.max(amount, 1)) / 10), BYTES.length - 1);
    return inUnit(amount / 1024 ** power, BYTES[power] ?? "byte");
  }
  if (resource.endsWith("_s")) {
    const [unit, size] = SECONDS.find(([, seconds]) => amount >= seconds) ?? SECONDS[2];
    return inUnit(amount / size, unit);
  }
  return formatCount(Math.round(amount), language);
}

/** Seconds into a video as players write them: 83 is 1:23; "" where a source wrote something else. */
export function formatClock(seconds: number): string {
  if (!(seconds >= 0 && seconds < Number.POSITIVE_INFINITY)) return "";
  const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
  const pad = (part: number) => String(part).padStart(2, "0");
  return hours > 0 ? `${hours}:${pad(minutes)}:${pad(rest)}` : `${minutes}:${pad(rest)}`;
}

/** When an object store wrote a generation, whose number is microseconds since 1970; "" where it is none. */
export function formatGeneration(generation: number, language = locale.value): string {
  const date = new Date(generation / 1000);
  if (!(date.getFullYear() >= 2020 && date.getFullYear() < 2200)) return "";
  return new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" }).format(date);
}

/** Milliseconds with as many digits as mean something. */
export function formatMilliseconds(ms: number, language = locale.value): string {
  if (ms >= 1000) return `${formatDecimal(ms / 1000, 1, language)} s`;
  return `${formatDecimal(ms, ms >= 10 ? 0 : 1, language)} ms`;
}

/** The start of a sentence from a name such as `screwdriver` or `n02_cat`. */
export function sentenceCase(name: string): string {
  const words = name.replaceAll("_", " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** The host of an address, without www. */
export function hostOf(address: string): string {
  try {
    return new URL(address).host.replace(/^www\./, "");
  } catch {
    return "";
  }
}

/** The address if a link may lead there. A catalogue is not trusted: `javascript:` and the like are not. */
export function safeLink(address: string | null | undefined): string | null {
  if (!address) return null;
  try {
    const url = new URL(address, typeof document === "undefined" ? "https://localhost/" : document.baseURI);
    return url.protocol === "https:" || url.protocol === "http:" ? url.href : null;
  } catch {
    return null;
  }
}
