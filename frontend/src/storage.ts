/** Reads again what another tab has changed: what is deleted there must not come back from here. */
export function followStorage(name: string, read: () => void): void {
  addEventListener("storage", ({ key }) => {
    // Null if everything was cleared.
    if (key === name || key === null) read();
  });
}
