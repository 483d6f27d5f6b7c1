/** Whether this browser has what the model needs: WebAssembly with SIMD, a worker, and a canvas in it. */
export function isAble(): boolean {
  // A function that makes a vector of 128 bits: WebAssembly without SIMD does not accept it.
  const simd = [
    0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
  ];
  try {
    return (
      typeof Worker === "function" &&
      typeof OffscreenCanvas === "function" &&
      WebAssembly.validate(Uint8Array.from(simd))
    );
  } catch {
    return false;
  }
}

/** GiB of memory from which a device runs the model by default, if its browser reports memory. */
const MEMORY_MIN = 4;
/** Kinds of connection over which nothing large is fetched by default. */
const SLOW = new Set(["slow-2g", "2g", "3g"]);

/** What browsers report about a device; many report nothing. */
interface Told {
  deviceMemory?: number;
  connection?: { saveData?: boolean; effectiveType?: string; type?: string };
}

/** Whether a device may run the model by default: it keeps files and is not known to lack memory or a good connection. */
export function isFit(told: Told = navigator as Told): boolean {
  const { deviceMemory = MEMORY_MIN, connection: { saveData, effectiveType = "", type } = {} } = told;
  const isGoodLine = !saveData && !SLOW.has(effectiveType) && type !== "cellular";
  return isAble() && typeof caches === "object" && deviceMemory >= MEMORY_MIN && isGoodLine;
}
