/** Reads anew what another tab has changed: what is deleted there is not to come back from here. */
export function followStorage(name: string, read: () => void): void {
  addEventListener("storage", ({ key }) => {
    // Null where all was cleared.
    if (key === name || key === null) read();
  });
}
