/** Scrolls to the position of a remembered page, once it is drawn. */
export function restoreScroll(top: number): void {
  requestAnimationFrame(() => scrollTo(0, top));
}

/** Scrolls up to the start of an element, if that is above the visible part. */
export function showTop(element: HTMLElement | null): void {
  if (element && element.getBoundingClientRect().top < 0) element.scrollIntoView({ block: "start" });
}

/** Gives the focus to the results, once they are drawn, if what had it is gone: a card, a chip, the start page's field. */
export function keepFocus(): void {
  requestAnimationFrame(() => {
    if (document.activeElement === document.body) document.getElementById("results")?.focus({ preventScroll: true });
  });
}
