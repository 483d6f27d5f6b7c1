/**
 * What can be wrong with a file that a page fetches for itself:
 *
 * - damaged: its bytes are not those that its name promises, also when fetched once more
 * - missing: the server does not have it (404, 410)
 * - refused: the server answered with another status
 * - silent: nothing came, or only a part
 * - newer: a later Visor wrote it, and this page cannot read it
 */
export type ChunkTroubleKind = "damaged" | "missing" | "refused" | "silent" | "newer";

export class ChunkTrouble extends Error {
  constructor(
    readonly kind: ChunkTroubleKind,
    /** The file's address or name. */
    readonly file: string,
    /** Of the server's answer, where it is refused or missing. */
    readonly status = 0,
  ) {
    super(`${kind}: ${file}`);
  }
}
