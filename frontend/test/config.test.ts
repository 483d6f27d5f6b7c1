import { describe, expect, it } from "vitest";
import { readConfig } from "../src/config";

describe("config.json", () => {
  it.each([null, [], "x", 3, {}])("of %j leaves the defaults", (found) => {
    expect(readConfig(found)).toEqual({ endpoint: "", title: "Visor", notes: [] });
  });

  it("gives the endpoint without its last slash", () => {
    expect(readConfig({ endpoint: " https://search.example.run.app/ " }).endpoint).toBe(
      "https://search.example.run.app",
    );
  });

  it("takes notes as sentences or links, and no link that is not one", () => {
    const notes = [
      "Prices are made up.",
      { text: "CC0", href: "https://a.example/" },
      { text: "x", href: "javascript:1" },
      4,
    ];
    expect(readConfig({ notes }).notes).toEqual([
      { text: "Prices are made up." },
      { text: "CC0", href: "https://a.example/" },
      { text: "x" },
    ]);
  });
});
