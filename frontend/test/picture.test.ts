import { expect, it } from "vitest";
import { fromDataUrl, isWebAddress, nameOfAddress, readAddress, withScheme } from "../src/picture/picture";

it.each([
  ["https://a.example/x.jpg", true],
  [" http://a.example ", true],
  ["a.example/x.jpg", false],
  ["ftp://a.example/x.jpg", false],
  ["javascript:alert(1)", false],
  ["hello", false],
  ["", false],
])("tells whether %j is a web address", (text, is) => {
  expect(isWebAddress(text)).toBe(is);
});

it("takes a data address apart without fetching it", async () => {
  const blob = fromDataUrl("data:image/gif;base64,R0lGODdh");
  expect(blob.type).toBe("image/gif");
  expect(await blob.text()).toBe("GIF87a");
  expect(await readAddress("data:image/svg+xml,%3Csvg/%3E")).toHaveProperty("file");
  expect(await readAddress("data:text/html,x")).toBeNull();
});

it("names a picture by its file, or by its host", () => {
  expect(nameOfAddress("https://a.example/p/Red%20shoe.jpg?w=3")).toBe("Red shoe.jpg");
  expect(nameOfAddress("https://a.example/p/100%.jpg")).toBe("100%.jpg");
  expect(nameOfAddress("https://a.example/")).toBe("a.example");
});

it.each([
  ["www.shop.example/cat.jpg", "https://www.shop.example/cat.jpg"],
  [" shop.example:8443/a/b ", "https://shop.example:8443/a/b"],
  ["http://a.example/x.jpg", "http://a.example/x.jpg"],
  ["no address", "no address"],
  ["cat.jpg", "cat.jpg"],
  ["javascript:alert(1)", "javascript:alert(1)"],
])("reads %j as it is meant", (typed, meant) => {
  expect(withScheme(typed)).toBe(meant);
});
