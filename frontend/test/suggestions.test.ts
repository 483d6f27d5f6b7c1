import { expect, it, vi } from "vitest";

vi.stubGlobal("location", { search: "", hash: "" });
vi.stubGlobal("localStorage", { getItem: () => null });
const { goOn } = await import("../src/views/ask/suggestions");

it.each([
  ["gre", "Green", "Green"],
  ["red gre", "Green", "red Green"],
  ["red,gre", "Green", "red,Green"],
  ["(gre", "Green", "(Green"],
  ["t-shi", "Shirt", "t-Shirt"],
  ["l'hui", "Huile", "l'Huile"],
  ["creme", "Crème", "Crème"],
  ["白い猫", "い猫", "白い猫"],
  ["皿 白", "白い", "皿 白い"],
  ["red猫", "猫の", "red猫の"],
])("%s goes on with %s as %s", (typed, word, whole) => {
  expect(goOn(typed, word)).toBe(whole);
});
