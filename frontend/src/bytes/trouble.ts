/**
 * What can be wrong with a file that a page fetches for itself:
 *
 * - damaged: its bytes are not those that its name promises, even when fetched again
 * - missing: the server does not have it (404, 410)
 * - refused: the server answered with another status
 * - silent: nothing came, or only a part
 * - newer: a later Visor wrote it, and this page cannot read it
 */
export type ChunkTroubleKind = "damaged" | "missing" | "refused" | "silent" | "newer";

export class ChunkTrouble extends Error {
  constructor(
    readonly kind: ChunkTroubleKind,
    /** The file's URL or name. */
    readonly file: string,
    /** The status of the server's answer, if the file is refused or missing. */
    readonly status = 0,
  ) {
    super(`${kind}: ${file}`);
  }
}
