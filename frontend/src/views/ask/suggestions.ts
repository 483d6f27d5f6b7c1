import { useEffect, useState } from "preact/hooks";
import { announce, api } from "../../state";
import { t } from "../../words/messages";

/** Typing faster than this asks for nothing. */
const PAUSE_MS = 120;
const SHOWN = 6;

const UNSPACED =
  "[\\p{sc=Han}\\p{sc=Hiragana}\\p{sc=Katakana}\\p{sc=Hangul}\\p{sc=Thai}\\p{sc=Lao}\\p{sc=Khmer}\\p{sc=Myanmar}ーｰ]";
/** The last word of a text, or pair of characters of a script without spaces (`index/words/analysis.py`). */
const LAST = new RegExp(`(?:${UNSPACED}{1,2}|(?:(?!${UNSPACED})[\\p{L}\\p{M}\\p{N}])*)$`, "u");

/** What is typed, gone on with a word of the catalogue in place of its last one. */
export function goOn(typed: string, word: string): string {
  if (word.toLowerCase().startsWith(typed.toLowerCase())) return word;
  // A pair is found by itself.
  return typed.endsWith(word) ? typed : typed.replace(LAST, () => word);
}

/** Texts that go on with what is typed, and which of them the arrow keys are on. `asked`: what is searched for already. */
export function useSuggestions(text: string, asked: string) {
  const [texts, setTexts] = useState<readonly string[]>([]);
  const [at, setAt] = useState(-1);
  const [isOpen, setOpen] = useState(false);
  useEffect(() => {
    setAt(-1);
    const typed = text.trim();
    if (!isOpen || !typed || typed === asked) return setTexts([]);
    // Until others come, those stay that go on with what is typed by now.
    setTexts((before) => before.filter((one) => one.toLowerCase().startsWith(typed.toLowerCase())));
    const controller = new AbortController();
    const ask = async () => {
      try {
        const { words } = await api.value.suggest(typed, controller.signal);
        const found = [...new Set(words.map((word) => goOn(typed, word)))].filter((one) => one !== typed);
        setTexts(found.slice(0, SHOWN));
        if (found.length > 0) announce(t("ask.suggested", { count: Math.min(found.length, SHOWN) }));
      } catch {
        // Suggestions are a courtesy.
      }
    };
    const timer = setTimeout(() => void ask(), PAUSE_MS);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [text, asked, isOpen]);
  const close = () => setOpen(false);
  const shown = isOpen ? texts : [];
  return {
    texts: shown,
    at,
    /** The text that the arrow keys are on. */
    chosen: shown[at] ?? null,
    open: () => setOpen(true),
    close,
    /** Whether a key was for the suggestions. */
    key: (name: string): boolean => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[name];
      if (shown.length === 0 || (!step && name !== "Escape")) return false;
      // One place more than there are texts: the one where the typed text stands again.
      if (step) setAt(((at + 1 + step + shown.length + 1) % (shown.length + 1)) - 1);
      else close();
      return true;
    },
  };
}
