import { describe, expect, it } from "vitest";
import {
  coinBefore,
  dayBefore,
  formatAmount,
  formatClock,
  formatCountry,
  formatDay,
  formatGeneration,
  formatMilliseconds,
  formatPercent,
  formatPrice,
  formatPriceText,
  formatShare,
  hostOf,
  safeLink,
  sentenceCase,
} from "../src/words/format";

describe("a price", () => {
  it.each([
    [12.5, "EUR", "en", "€12.50"],
    [129, "EUR", "en", "€129"],
    [9, "USD", "en", "$9.00"],
    [1500, "JPY", "en", "¥1,500"],
    [12.5, null, "en", "12.5"],
    [12.5, "GOLD", "en", "12.5 GOLD"],
  ])("of %s %s reads %4$s", (price, currency, language, text) => {
    expect(formatPrice(price, currency, language)).toBe(text);
  });

  it.each([
    ["40 EUR", null, "€40.00"],
    ["40,50", "EUR", "€40.50"],
    ["1.234", "EUR", "1.234"],
    ["from 40 EUR", "EUR", "from 40 EUR"],
  ])("that a feed writes as %s reads %3$s", (text, currency, read) => {
    expect(formatPriceText(text, currency, "en")).toBe(read);
  });

  it("follows the reader's language", () => {
    expect(formatPrice(1234.5, "EUR", "de").replaceAll(/\s/g, " ")).toBe("1.234,50 €");
  });
});

it.each([
  ["PT", "Portugal"],
  ["pt", "Portugal"],
  ["Portugal", "Portugal"],
  ["ZZZ", "ZZZ"],
])("names the country %s", (country, name) => {
  expect(formatCountry(country, "en")).toBe(name);
});

it.each([
  [0, "en", "< 1%"],
  [0.004, "de", "< 1 %"],
  [0.5, "fr", "50 %"],
  [0.994, "es", "> 99 %"],
  [1, "en", "> 99%"],
])("never says that %s is certain, in %s", (probability, language, text) => {
  expect(formatPercent(probability, language).replaceAll(/\s/g, " ")).toBe(text);
});

it.each([
  ["2026-02-03", "en-GB", "3 Feb 2026"],
  ["2026-02-03T23:59:00Z", "de", "03.02.2026"],
  ["last spring", "en", "last spring"],
  ["0024-05-01", "en-GB", "1 May 24"],
  ["2026-02-31", "en", "2026-02-31"],
])("writes the day of %s as %s does", (date, language, text) => {
  expect(formatDay(date, language)).toBe(text);
});

it.each([
  [0.31, "0.3 ms"],
  [71.3, "71 ms"],
  [2345, "2.3 s"],
])("gives %s ms the digits that mean something", (ms, text) => {
  expect(formatMilliseconds(ms, "en")).toBe(text);
});

it.each([
  ["response_bytes", 0, "0 byte"],
  ["response_bytes", 722_451, "706 kB"],
  ["response_bytes", 1024 ** 3, "1 GB"],
  ["vcpu_s", 143.6, "2.4 min"],
  ["vcpu_s", 180_000, "50 hr"],
  ["class_a", 18.34, "18"],
  ["firestore_reads", 50_000, "50,000"],
])("gives %s of %d in a unit that can be read", (resource, amount, text) => {
  expect(formatAmount(resource, amount, "en")).toBe(text);
});

it("says all of it where all of it was measured", () => {
  expect(formatShare(1, "en")).toBe("100%");
  expect(formatShare(0.9912, "de")).toBe("99,1\u00a0%");
});

it.each([
  [5, "0:05"],
  [83.4, "1:23"],
  [3683, "1:01:23"],
  [Number("a minute"), ""],
  [-5, ""],
])("writes %s seconds as players do", (seconds, text) => {
  expect(formatClock(seconds)).toBe(text);
});

it("takes a generation for a time only where it is one", () => {
  expect(formatGeneration(1_795_242_221_033_689, "en")).toContain("Nov 21, 2026");
  expect(formatGeneration(3, "en")).toBe("");
});

it("makes names readable", () => {
  expect(sentenceCase("hand_tools")).toBe("Hand tools");
  expect(hostOf("https://www.shop.example:8443/p")).toBe("shop.example:8443");
});

it.each([
  "javascript:alert(1)",
  "data:text/html,x",
  "file:///etc/passwd",
  "",
  null,
  "vbscript:x",
  " javascript:alert(1)",
])("links nowhere for %j", (address) => {
  expect(safeLink(address)).toBeNull();
});

it("links to the web", () => {
  expect(safeLink("https://shop.example/p?x=1")).toBe("https://shop.example/p?x=1");
});

it.each([
  [25, "EUR", 24.99],
  [0.3, "EUR", 0.29],
  [3000, "JPY", 2999],
  [2.5, "KWD", 2.499],
  [25, null, 24.99],
])("before a price of %s %s comes %s", (price, currency, before) => {
  expect(coinBefore(price, currency)).toBe(before);
});

it.each([
  ["2024-03-01", "2024-02-29"],
  ["2024-01-01", "2023-12-31"],
  ["0100-01-01", "0099-12-31"],
  ["tomorrow", "tomorrow"],
])("before %s comes %s", (date, before) => {
  expect(dayBefore(date)).toBe(before);
});
