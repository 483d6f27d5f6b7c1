import { effect } from "@preact/signals";
import { render } from "preact";
import { loadConfig } from "./config";
import { followFacets } from "./endpoint/facets";
import { followRejected } from "./endpoint/feedback";
import { followKey } from "./owner";
import { followRecent } from "./recent";
import { followModel } from "./search/connect";
import { begin, follow } from "./search/links";
import { answer, askedAs, config, options, query } from "./state";
import "./styles/index.css";
import { followTheme } from "./theme";
import { App } from "./views/App";
import { speakBest } from "./words/messages";
import { bandOf } from "./words/sureness";
import { titleOf } from "./words/title";

followTheme();
followKey();
followRejected();
followRecent();
config.value = await loadConfig();
await speakBest(config.value.language).catch(() => {
  document.querySelector("#page > p")?.removeAttribute("hidden");
  // Without words there is nothing to go on with.
  return new Promise<never>(() => undefined);
});
effect(() => {
  const found = answer.value?.matches.length ? bandOf(answer.value, askedAs.value) : null;
  document.title = titleOf(query.value, options.value.text, config.value.title, found);
});
if (config.value.exported) install();
const root = document.getElementById("page");
if (root) render(<App />, root);
followFacets();
followModel();
// The browser would restore it before the page is drawn.
history.scrollRestoration = "manual";
addEventListener("popstate", () => void follow());
void begin();

/** Has the browser keep the page, and offer to install it. */
function install(): void {
  document.head.append(Object.assign(document.createElement("link"), { rel: "manifest", href: "./app.webmanifest" }));
  void navigator.serviceWorker?.register("./serviceWorker.js").catch(() => undefined);
}
