import { defineConfig } from "vitest/config";

// The bucket's path-style address has a prefix and no index rewriting, so every link is relative.
export default defineConfig({
  base: "./",
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: { target: "es2022", modulePreload: { polyfill: false }, assetsInlineLimit: 0, reportCompressedSize: true },
  test: { setupFiles: ["test/setup.ts"] },
  server: { proxy: { "/v1": process.env["VISOR_ENDPOINT"] ?? "http://127.0.0.1:8080" } },
});
