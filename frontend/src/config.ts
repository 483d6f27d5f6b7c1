/** The owner's settings for this page, in the file next to it. */
export interface Config {
  /** URL of the search function, or "" if it serves this page itself. */
  endpoint: string;
  /** URL of the files of an export, which the page searches itself. */
  exported?: string;
  /** Whether there is a server in addition to an export, to answer what its files cannot. */
  hasServer?: boolean;
  /** URL of a folder with the model's files, if they should not come from the endpoint. */
  models?: string;
  title: string;
  /** One sentence under the headline. */
  tagline?: string;
  /** Language of numbers and names of countries, e.g. `de`; the visitor's if it is not set. */
  language?: string;
  /** Shown at the foot and in the about panel: licences, credits, 'prices are made up'. */
  notes: Note[];
}

export interface Note {
  text: string;
  href?: string;
}

/** Reads `config.json` again, so that a changed endpoint is seen at once. Never fails: the defaults suit the same origin. */
export async function loadConfig(): Promise<Config> {
  try {
    const response = await fetch(new URL("config.json", document.baseURI), { cache: "no-cache" });
    return response.ok ? readConfig(await response.json()) : readConfig({});
  } catch {
    return readConfig({});
  }
}

export function readConfig(found: unknown): Config {
  const given = (typeof found === "object" && found !== null ? found : {}) as Record<string, unknown>;
  const text = (name: string) => (typeof given[name] === "string" ? (given[name] as string).trim() : "");
  const config: Config = {
    endpoint: text("endpoint").replace(/\/+$/, ""),
    title: text("title") || "Visor",
    notes: Array.isArray(given["notes"]) ? given["notes"].flatMap(readNote) : [],
  };
  const tagline = text("tagline");
  const models = text("models").replace(/\/*$/, "/");
  const language = /^[a-z]{2,3}(-[A-Za-z0-9]+)*$/.test(text("language")) ? text("language") : "";
  const exported = text("export").replace(/\/*$/, "/");
  const own = exported === "/" ? {} : { exported: new URL(exported, baseOf()).href, hasServer: "endpoint" in given };
  return {
    ...config,
    ...own,
    ...(models === "/" ? {} : { models: new URL(models, baseOf()).href }),
    ...(tagline ? { tagline } : {}),
    ...(language ? { language } : {}),
  };
}

const baseOf = (): string => (typeof document === "undefined" ? "http://localhost/" : document.baseURI);

function readNote(found: unknown): Note[] {
  if (typeof found === "string") return [{ text: found }];
  if (typeof found !== "object" || found === null || !("text" in found)) return [];
  const href = "href" in found && typeof found.href === "string" && /^https?:/.test(found.href) ? found.href : null;
  return [href ? { text: String(found.text), href } : { text: String(found.text) }];
}
