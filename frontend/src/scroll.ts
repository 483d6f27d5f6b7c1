/** Goes to where a remembered page stood, once it is drawn. */
export function restoreScroll(top: number): void {
  requestAnimationFrame(() => scrollTo(0, top));
}

/** Goes up to the start of an element, if that is above what can be seen. */
export function showTop(element: HTMLElement | null): void {
  if (element && element.getBoundingClientRect().top < 0) element.scrollIntoView({ block: "start" });
}
