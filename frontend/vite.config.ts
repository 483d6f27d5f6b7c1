import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { gzipSync } from "node:zlib";
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

/** Gives the address of a file that is packed: servers of static files rarely do so, and none says how large it is. */
const packed = (): Plugin => ({
  name: "packed",
  enforce: "pre",
  async resolveId(source, importer) {
    if (!source.endsWith("?packed")) return null;
    const found = await this.resolve(source.replace("?packed", "?url"), importer, { skipSelf: true });
    if (!found) return null;
    const path = found.id.replace("?url", "");
    const folder = join(import.meta.dirname, "node_modules", ".packed");
    const target = join(folder, `${basename(path, ".wasm")}.gz`);
    mkdirSync(folder, { recursive: true });
    writeFileSync(target, gzipSync(readFileSync(path), { level: 9 }));
    return `${target}?url`;
  },
});

// The bucket's path-style address has a prefix and no index rewriting, so every link is relative.
export default defineConfig({
  base: "./",
  plugins: [shellList(), wat(), packed()],
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
  worker: { plugins: () => [wat(), packed()] },
  // `make test` runs them beside all others.
  test: { setupFiles: ["test/setup.ts"], testTimeout: 30_000 },
  server: { proxy: { "/v1": process.env["VISOR_ENDPOINT"] ?? "http://127.0.0.1:8080" } },
});
