import type { JSX } from "preact";

/** 24 × 24 line drawings in the text's colour; the text beside them says what they mean. */
const PATHS = {
  upload: "M12 15V4m0 0L7.5 8.5M12 4l4.5 4.5M4 15v3a2 2 0 0 0 2 2h12a2 2 0 0 0 2-2v-3",
  camera:
    "M4 8a2 2 0 0 1 2-2h1.6l1.2-1.6A1 1 0 0 1 9.6 4h4.8a1 1 0 0 1 .8.4L16.4 6H18a2 2 0 0 1 2 2v9a2 2 0 0 1-2 2H6a2 2 0 0 1-2-2zm8 8a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7z",
  picture:
    "M6 4h12a2 2 0 0 1 2 2v12a2 2 0 0 1-2 2H6a2 2 0 0 1-2-2V6c0-1.1.9-2 2-2zm-2 12 4.5-4.5L13 16m-2-2 3-3 6 6M15.5 8.5h.01",
  search: "M11 5a6 6 0 1 0 0 12 6 6 0 0 0 0-12zm4.4 10.4L20 20",
  plus: "M12 6v12m-6-6h12",
  minus: "M6 12h12",
  more: "M6 12a.6.6 0 1 0 0-.01zm6 0a.6.6 0 1 0 0-.01zm6 0a.6.6 0 1 0 0-.01z",
  compare: "M12 4v16M10 6H6a2 2 0 0 0-2 2v8a2 2 0 0 0 2 2h4m4-12h4a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2h-4",
  language:
    "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16zM4.3 10h15.4M4.3 14h15.4M12 4c-4.5 5-4.5 11 0 16m0-16c4.5 5 4.5 11 0 16",
  arrow: "M5 12h14m-5-5 5 5-5 5",
  out: "M8 6h10v10M18 6 6 18",
  box: "M4 8V6a2 2 0 0 1 2-2h2m8 0h2a2 2 0 0 1 2 2v2m0 8v2a2 2 0 0 1-2 2h-2m-8 0H6a2 2 0 0 1-2-2v-2",
  brush: "M20 4 10.5 13.5m0 0a3.2 3.2 0 0 0-4.6.1C4.5 15 5.5 17.5 3.5 19.5c3 .7 6.2.2 7.4-1.4a3.2 3.2 0 0 0-.4-4.6z",
  undo: "M8 5 4 9l4 4M4 9h9.5a5.5 5.5 0 0 1 0 11H10",
  close: "M6 6l12 12M18 6 6 18",
  similar: "M9 4h9a2 2 0 0 1 2 2v9M6 8h8a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2H6a2 2 0 0 1-2-2v-8c0-1.1.9-2 2-2z",
  why: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16zm0 4.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7z",
  reject: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16zM6.5 6.5l11 11",
  link: "M10 14a4 4 0 0 0 5.7 0l3-3A4 4 0 0 0 13 5.3l-1 1M14 10a4 4 0 0 0-5.7 0l-3 3A4 4 0 0 0 11 18.7l1-1",
  info: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16zm0 7.5v4M12 8.3h.01",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zm0-5v1.5m0 15V21m9-9h-1.5m-15 0H3m15.4-6.4-1.1 1.1M6.7 17.3l-1.1 1.1m12.8 0-1.1-1.1M6.7 6.7 5.6 5.6",
  moon: "M19.5 14.5A8 8 0 0 1 9.5 4.5a8 8 0 1 0 10 10z",
  filter: "M4 7h16M7 12h10m-7 5h4",
  chevron: "m7 10 5 5 5-5",
  shield: "M12 3.5 5 6v5.5c0 4 2.8 7.3 7 9 4.2-1.7 7-5 7-9V6zM9 12l2.2 2.2L15.2 10",
  alert: "M12 4 3 19.5h18zM12 10v4.5m0 2.7h.01",
  nothing: "M11 5a6 6 0 1 0 0 12 6 6 0 0 0 0-12zm4.4 10.4L20 20M8.5 11h5",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 20 }: { name: IconName; size?: number }): JSX.Element {
  return (
    <svg class="icon" width={size} height={size} viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

/** The mark of Visor. */
export function Mark(): JSX.Element {
  return (
    <svg class="mark" viewBox="0 0 32 32" width="28" height="28" aria-hidden="true">
      <rect width="32" height="32" rx="9" />
      <path d="M6 11V9a3 3 0 0 1 3-3h2m10 0h2a3 3 0 0 1 3 3v2m0 10v2a3 3 0 0 1-3 3h-2m-10 0H9a3 3 0 0 1-3-3v-2" />
      <circle cx="16" cy="16" r="5" />
    </svg>
  );
}
