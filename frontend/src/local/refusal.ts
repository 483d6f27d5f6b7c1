/** A request that cannot be answered as it is: what was found, what is valid, what to do. In English, as on servers. */
export class Refusal extends Error {
  constructor(
    readonly found: string,
    readonly valid = "",
    readonly remedy = "",
    /** Type of the problem document. */
    readonly kind = "bad_request",
  ) {
    super(found);
  }
}
