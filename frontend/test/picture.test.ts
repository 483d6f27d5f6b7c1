import { expect, it, vi } from "vitest";
import {
  fromDataUrl,
  isWebAddress,
  nameOfAddress,
  readAddress,
  readTransfer,
  withScheme,
} from "../src/picture/picture";

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
  expect(blob?.type).toBe("image/gif");
  expect(await blob?.text()).toBe("GIF87a");
  expect(await readAddress("data:image/svg+xml,%3Csvg/%3E")).toHaveProperty("file");
  expect(await readAddress("data:text/html,x")).toBeNull();
});

it.each([
  ["data:image/gif;base64,R0lG%4fDdh", "GIF87a"],
  ["data:image/gif;charset=x; base64,R0lG\nODdh", "GIF87a"],
  [
    'data:image/svg+xml;utf8,<svg width="100%"><text>ü羊%C3%BC</text></svg>',
    '<svg width="100%"><text>ü羊ü</text></svg>',
  ],
])("reads %j as browsers do", async (address, text) => {
  expect(await fromDataUrl(address)?.text()).toBe(text);
});

it.each(["data:image/png;base64,@@@", "data:image/png;base64,A", "data:image/png", "data:image/png,"])(
  "takes nothing from %j, which is damaged",
  async (address) => expect(await readAddress(address)).toBeNull(),
);

it("looks for the address of a picture wherever a drop may hold one", async () => {
  const drop = (src: string) => {
    const texts: Record<string, string> = { "text/html": "<img>", "text/uri-list": "# a\r\nhttps://a.example/p" };
    vi.stubGlobal(
      "DOMParser",
      class {
        parseFromString = () => ({ querySelector: () => ({ getAttribute: () => src }) });
      },
    );
    return readTransfer({ files: [], getData: (kind: string) => texts[kind] ?? "" } as unknown as DataTransfer);
  };
  expect(await drop("https://a.example/x.jpg")).toEqual({ url: "https://a.example/x.jpg" });
  for (const src of ["", "blob:https://a.example/1", "data:image/gif;base64,?"])
    expect(await drop(src)).toEqual({ url: "https://a.example/p" });
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
