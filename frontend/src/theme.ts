import { signal } from "@preact/signals";

type Theme = "light" | "dark";
const KEY = "visor-theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

function chosen(): Theme | null {
  try {
    const value = localStorage.getItem(KEY);
    return value === "light" || value === "dark" ? value : null;
  } catch {
    // Storage may be switched off: then the system decides on every visit.
    return null;
  }
}

export const theme = signal<Theme>(chosen() ?? (dark.matches ? "dark" : "light"));

/** Follows the system until the visitor chooses. */
export function followTheme(): void {
  const choice = chosen();
  if (choice) document.documentElement.dataset["theme"] = choice;
  dark.addEventListener("change", () => {
    if (!chosen()) theme.value = dark.matches ? "dark" : "light";
  });
}

export function toggleTheme(): void {
  theme.value = theme.value === "dark" ? "light" : "dark";
  document.documentElement.dataset["theme"] = theme.value;
  try {
    localStorage.setItem(KEY, theme.value);
  } catch {
    // Then the choice lasts as long as the page is open.
  }
}
