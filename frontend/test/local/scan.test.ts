import { afterEach, expect, test, vi } from "vitest";
import { Codes } from "../../src/local/search/scan";

afterEach(() => vi.unstubAllGlobals());

/** Numbers that look random and are the same each time. */
const numbers = (count: number, from: number) =>
  Float32Array.from({ length: count }, (_, at) => Math.sin((at + from) ** 2 * 0.7));

function filled(count: number, m: number): Codes {
  const codes = new Codes(count, m);
  for (let row = 0; row < count; row += 1) {
    const values = numbers(m, 31 * row).map((value) => Math.round(value * 127) + 128);
    codes.bytes.set(values, row * codes.stride);
  }
  return codes;
}

test.each([
  [1, 1],
  [7, 15],
  [50, 48],
  [33, 250],
  [1000, 256],
  [3, 3328],
])("%i rows of %i codes are as near by the kernel as by plain numbers", (count, m) => {
  const query = numbers(m, 5).map((value) => value / Math.sqrt(m));
  const fast = filled(count, m).products(query);
  vi.stubGlobal("WebAssembly", undefined);
  const plain = filled(count, m).products(query);
  const length = 127 * Math.sqrt(m);
  fast.forEach((product, row) => {
    expect(Math.abs(product - (plain[row] as number)) / length, `row ${row}`).toBeLessThan(1e-5);
  });
});

test("the longest sums stay within their numbers", () => {
  const codes = new Codes(2, 512);
  codes.bytes.fill(255, 0, codes.stride);
  codes.bytes.fill(1, codes.stride);
  const [most, least] = codes.products(new Float32Array(512).fill(1));
  expect((most as number) / (512 * 127)).toBeCloseTo(1, 4);
  expect((least as number) / (512 * -127)).toBeCloseTo(1, 4);
});
