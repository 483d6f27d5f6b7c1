/** A server of static files, as any bucket is one. */
import { readFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";

export const GOLDEN = new URL("../../../tests/golden/private/", import.meta.url);

export async function serve(folder: URL): Promise<{ base: string; server: Server }> {
  const server = createServer((request, response) => {
    readFile(new URL(`.${request.url}`, folder)).then(
      (bytes) => response.end(bytes),
      () => response.writeHead(404).end(),
    );
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return { base: `http://127.0.0.1:${(server.address() as AddressInfo).port}/data/`, server };
}
