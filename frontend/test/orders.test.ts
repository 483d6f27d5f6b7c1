import { expect, it } from "vitest";
import { ordersFor } from "../src/search/orders";

const LASTING = ["likeness", "largest", "smallest"];
const DATES = [{ min: "2024-01-01", max: "2024-02-01", count: 1 }];

it.each([
  [{}, true, ["most_changed"]],
  [{ price_max: 5 }, false, ["price_up", "price_down"]],
  [{ date_ranges: DATES }, false, ["newest", "oldest"]],
])("offers of a catalogue with %o, with a picture: %s, also the orders %o", (has, hasPicture, orders) => {
  expect(new Set(ordersFor({ images: 9, ...has }, hasPicture))).toEqual(new Set([...LASTING, ...orders]));
});
