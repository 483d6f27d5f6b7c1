/** One question at a time: a newer one replaces the previous one. */

let running: AbortController | null = null;
let pause: ReturnType<typeof setTimeout> | undefined;

/** Aborts what is running, and starts something else. */
export function takeTurn(): AbortController {
  stop();
  running = new AbortController();
  return running;
}

export const hasTurn = (controller: AbortController): boolean => running === controller;

export function stop(): void {
  clearTimeout(pause);
  running?.abort();
  running = null;
}

/** Does something when the input pauses, unless something else starts first. */
export function afterPause(milliseconds: number, act: () => void): void {
  clearTimeout(pause);
  pause = setTimeout(act, milliseconds);
}
