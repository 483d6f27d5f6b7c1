import { render } from "preact";
import { loadConfig } from "./config";
import { followFacets } from "./endpoint/facets";
import { begin, follow } from "./search";
import { config } from "./state";
import "./styles/index.css";
import { followTheme } from "./theme";
import { App } from "./views/App";

followTheme();
config.value = await loadConfig();
document.title = config.value.title;
const root = document.getElementById("page");
if (root) render(<App />, root);
followFacets();
addEventListener("popstate", () => void follow());
void begin();
