import type { Plugin, Rollup } from "vite";
import { defineConfig } from "vitest/config";

/** A larger file (the runtime of a model) is kept when it is first used. */
const SHELL_FILE_MAX = 1_000_000;

/** Lists the page's files for its service worker. */
const shellList = (): Plugin => ({
  name: "shell-list",
  generateBundle(_, bundle: Rollup.OutputBundle) {
    const sizeOf = (file: Rollup.OutputAsset | Rollup.OutputChunk) =>
      Buffer.byteLength(file.type === "chunk" ? file.code : file.source);
    const files = Object.values(bundle).filter((file) => sizeOf(file) < SHELL_FILE_MAX);
    const names = files.map(({ fileName }) => fileName).filter((name) => name.startsWith("assets/"));
    this.emitFile({ type: "asset", fileName: "shell.json", source: JSON.stringify([...names, "icon.svg"]) });
  },
});

/** Assembles WebAssembly text into its bytes, as base64. */
const wat = (): Plugin => ({
  name: "wat",
  async transform(text, id) {
    if (!id.endsWith(".wat")) return null;
    const { default: load } = await import("wabt");
    const { buffer } = (await load()).parseWat(id, text, { simd: true }).toBinary({});
    return { code: `export default "${Buffer.from(buffer).toString("base64")}"`, map: null };
  },
});

// The bucket's path-style address has a prefix and no index rewriting, so every link is relative.
export default defineConfig({
  base: "./",
  plugins: [shellList(), wat()],
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: {
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    reportCompressedSize: true,
    rollupOptions: {
      input: { index: "index.html", serviceWorker: "src/serviceWorker.ts" },
      // A service worker is renewed under its own address, and reaches no further than its folder.
      output: {
        entryFileNames: ({ name }) => (name === "serviceWorker" ? "[name].js" : "assets/[name]-[hash].js"),
      },
    },
  },
  worker: { plugins: () => [wat()] },
  test: { setupFiles: ["test/setup.ts"] },
  server: { proxy: { "/v1": process.env["VISOR_ENDPOINT"] ?? "http://127.0.0.1:8080" } },
});
