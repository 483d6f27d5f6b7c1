import { expect, test } from "vitest";
import { priceRanges } from "../../src/local/search/facetCounts";

test.each([
  [[3.8, 6.92]],
  [[19.99, 29.99, 39.99, 49.99, 59.99, 99.9]],
  [Array.from({ length: 200 }, (_, at) => (at * 7) / 10)],
])("every price lies in a range, however float32 rounds it", (prices) => {
  const rising = Float32Array.from(prices).sort();
  const counted = priceRanges(rising, 6).map((range) => range.count);
  expect(counted.reduce((sum, count) => sum + count, 0)).toBe(prices.length);
});
