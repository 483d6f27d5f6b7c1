/** Codes in memory, and how near each row is to a query: by WebAssembly's SIMD, or without it in plain JavaScript. */
import { fromBase64 } from "../../bytes/base64";
import type { Floats } from "./linear";
import kernel from "./scan.wat";

const PAGE_BYTES = 65_536;
/** Codes per instruction. */
const LANES = 16;
const MIDDLE = 128;
/** A query of integers is as large as int16, and the int32 sums, allow. */
const [INT16, INT32] = [32_767, 2_147_483_647];

type Scan = (codes: number, rows: number, stride: number, query: number, out: number) => void;

/** n rows of m codes, in one piece of memory: a coordinate plus 128 each. */
export class Codes {
  /** Bytes of a row: codes after the m-th are padding. */
  readonly stride: number;
  readonly bytes: Uint8Array;
  private readonly query: Int16Array;
  private readonly sums: Int32Array;
  private readonly scan: Scan | null;

  /** Raises `RangeError` if there is not enough memory. */
  constructor(
    readonly count: number,
    readonly m: number,
  ) {
    this.stride = Math.ceil(m / LANES) * LANES;
    const [codes, query] = [count * this.stride, 2 * this.stride];
    const pages = Math.ceil((codes + query + 4 * count) / PAGE_BYTES) || 1;
    const { memory, scan } = assemble(pages);
    this.bytes = new Uint8Array(memory, 0, codes);
    this.query = new Int16Array(memory, codes, this.stride);
    this.sums = new Int32Array(memory, codes + query, count);
    this.scan = scan;
  }

  /** (n,) inner products with a query (m,), to about six digits. */
  products(query: Floats): Floats {
    return this.scan ? this.byKernel(query, this.scan) : this.byNumbers(query);
  }

  private byKernel(query: Floats, scan: Scan): Floats {
    const { bytes, sums, count, stride } = this;
    const most = query.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    const all = query.reduce((a, b) => a + Math.abs(b), 0);
    const scale = Math.min(INT16 / Math.max(most, 1e-12), INT32 / (MIDDLE * Math.max(all, 1e-12)) / 1.01);
    this.query.set(query.map((value) => Math.round(value * scale)));
    scan(bytes.byteOffset, count, stride, this.query.byteOffset, sums.byteOffset);
    const found = new Float32Array(count);
    for (let row = 0; row < count; row += 1) found[row] = (sums[row] as number) / scale;
    return found;
  }

  private byNumbers(query: Floats): Floats {
    const { bytes, count, m, stride } = this;
    const found = new Float32Array(count);
    const all = MIDDLE * query.reduce((sum, value) => sum + value, 0);
    for (let row = 0; row < count; row += 1) {
      // Four sums, so that no product waits for the previous one.
      let a = 0;
      let b = 0;
      let c = 0;
      let d = 0;
      const from = row * stride;
      for (let at = 0; at < m; at += 4) {
        a += (bytes[from + at] as number) * (query[at] as number);
        b += (bytes[from + at + 1] as number) * (query[at + 1] ?? 0);
        c += (bytes[from + at + 2] as number) * (query[at + 2] ?? 0);
        d += (bytes[from + at + 3] as number) * (query[at + 3] ?? 0);
      }
      found[row] = a + b + c + d - all;
    }
    return found;
  }
}

function assemble(pages: number): { memory: ArrayBufferLike; scan: Scan | null } {
  try {
    const memory = new WebAssembly.Memory({ initial: pages });
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(fromBase64(kernel)), { page: { memory } });
    return { memory: memory.buffer, scan: exports["scan"] as Scan };
  } catch {
    // Switched off, or without SIMD: Safari before 16.4, some hardened browsers.
    return { memory: new ArrayBuffer(pages * PAGE_BYTES), scan: null };
  }
}
