/**
 * Keeps the page itself, so that an export works without a network: its files by their names, which change with their
 * content, and the page that names them only when all of them are here. Catalogue and model are kept by the code that
 * checks them.
 */

/** What a service worker is, as far as it is used here: TypeScript's own library for workers does not go with the page's. */
interface Waiting extends Event {
  waitUntil(promise: Promise<unknown>): void;
}
interface Fetching extends Waiting {
  request: Request;
  respondWith(response: Promise<Response>): void;
}
interface Scope {
  registration: { scope: string };
  skipWaiting(): Promise<void>;
  clients: { claim(): Promise<void> };
  addEventListener(name: "install" | "activate", listen: (event: Waiting) => void): void;
  addEventListener(name: "fetch", listen: (event: Fetching) => void): void;
}
const worker = self as unknown as Scope;

const SHELL = "visor-shell";
const PICTURES = "visor-pictures";
/** Lists the files of the build. */
const LIST = "shell.json";
const address = (path: string): string => new URL(path, worker.registration.scope).href;

worker.addEventListener("install", (event) => event.waitUntil(renewShell().then(() => worker.skipWaiting())));
worker.addEventListener("activate", (event) => event.waitUntil(worker.clients.claim()));
worker.addEventListener("fetch", (event) => {
  const { request } = event;
  const isOurs = request.method === "GET" && request.url.startsWith(worker.registration.scope);
  if (!isOurs || request.headers.has("Range")) return;
  const path = request.url.replace(/[?#].*$/, "");
  if (path === address("./") || path === address("index.html")) {
    event.respondWith(fromNetwork(address("./")));
    event.waitUntil(renewShell().catch(() => undefined));
  } else if (request.url === address("config.json")) event.respondWith(fromNetwork(request.url));
  else if (request.url.startsWith(address("assets/"))) event.respondWith(fromCache(SHELL, request));
  else if (request.destination === "image") event.respondWith(fromCache(PICTURES, request));
});

/** Fetches the page's new files, then switches to them, then drops the old ones. */
async function renewShell(): Promise<void> {
  const shell = await caches.open(SHELL);
  const files: string[] = await (await fetch(address(LIST), { cache: "no-cache" })).json();
  const wanted = files.map(address);
  for (const url of wanted) if (!(await shell.match(url))) await shell.add(url);
  for (const path of ["./", "config.json"]) {
    const response = await fetch(address(path), { cache: "no-cache" });
    if (response.ok) await shell.put(address(path), response);
  }
  const isRuntime = (url: string) => url.endsWith(".gz");
  const kept = new Set([...wanted, address("./"), address("config.json")]);
  for (const { url } of await shell.keys()) if (!kept.has(url) && !isRuntime(url)) await shell.delete(url);
}

/** The page as the server has it now, or as it was kept. */
async function fromNetwork(url: string): Promise<Response> {
  try {
    return await fetch(url, { cache: "no-cache" });
  } catch (error) {
    const kept = await caches.match(url);
    if (kept) return kept;
    throw error;
  }
}

/** The kept file, or the server's, which is kept from then on if there is room. */
async function fromCache(name: string, request: Request): Promise<Response> {
  const kept = await caches.match(request.url);
  if (kept) return kept;
  const response = await fetch(request);
  if (response.ok) {
    const copy = response.clone();
    await caches
      .open(name)
      .then((cache) => cache.put(request.url, copy))
      .catch(() => undefined);
  }
  return response;
}
