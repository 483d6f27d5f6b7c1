/** One question at a time: a newer one takes the turn of the one before. */

let running: AbortController | null = null;
let pause: ReturnType<typeof setTimeout> | undefined;

/** Ends what runs, and begins something else. */
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

/** Does something when the hand rests, unless something else begins before. */
export function afterPause(milliseconds: number, act: () => void): void {
  clearTimeout(pause);
  pause = setTimeout(act, milliseconds);
}
