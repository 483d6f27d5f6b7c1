/**
 * The file format of segments, shards and exports: safetensors with a kind and a format version
 * (`shared/visor/index/format/container.py`). Damaged files were refused before, by the checksum of the whole file.
 */
import { ChunkTrouble } from "./trouble";

/** Versions up to this one are read. */
export const FORMAT_VERSION = 1;

const TYPES = {
  F16: Uint16Array,
  F32: Float32Array,
  F64: Float64Array,
  I8: Int8Array,
  U8: Uint8Array,
  I32: Int32Array,
  I64: BigInt64Array,
  U16: Uint16Array,
  U32: Uint32Array,
  U64: BigUint64Array,
} as const;

type Code = keyof typeof TYPES;
export type Tensor = InstanceType<(typeof TYPES)[Code]>;

interface Entry {
  dtype: Code;
  shape: number[];
  data_offsets: [number, number];
}

/** An opened file. Tensors are views of its bytes, which must not be changed. */
export class Container {
  private constructor(
    readonly name: string,
    readonly about: Readonly<Record<string, unknown>>,
    private readonly entries: Readonly<Record<string, Entry>>,
    private readonly bytes: Uint8Array<ArrayBuffer>,
    private readonly start: number,
  ) {}

  /** Reads the header. Raises `ChunkTrouble` if this is not such a file, or one of a later version. */
  static open(name: string, bytes: Uint8Array<ArrayBuffer>, kind: string): Container {
    try {
      const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
      const { __metadata__: metadata, ...entries } = JSON.parse(
        new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(8, 8 + length)),
      );
      const version = Number(metadata.format);
      if (version > FORMAT_VERSION) throw new ChunkTrouble("newer", name);
      if (metadata.kind !== kind) throw new ChunkTrouble("damaged", name);
      return new Container(name, JSON.parse(metadata.about), entries, bytes, 8 + length);
    } catch (error) {
      if (error instanceof ChunkTrouble) throw error;
      throw new ChunkTrouble("damaged", name);
    }
  }

  has(tensor: string): boolean {
    return tensor in this.entries;
  }

  shape(tensor: string): readonly number[] {
    return this.entry(tensor).shape;
  }

  /** One tensor, flat, without a copy; halves (F16) as the 16 bits of each. */
  tensor(tensor: string): Tensor {
    const { dtype, data_offsets: place } = this.entry(tensor);
    const Type = TYPES[dtype];
    const from = this.bytes.byteOffset + this.start + place[0];
    const count = (place[1] - place[0]) / Type.BYTES_PER_ELEMENT;
    if (place[1] + this.start > this.bytes.length) throw new ChunkTrouble("damaged", this.name);
    // Tensors begin at multiples of 64 bytes of their file, which itself need not begin at one.
    if (from % Type.BYTES_PER_ELEMENT === 0) return new Type(this.bytes.buffer, from, count);
    return new Type(this.bytes.buffer.slice(from, from + place[1] - place[0]), 0, count);
  }

  /** One tensor of UTF-8 JSON. */
  json<Value>(tensor: string): Value {
    return JSON.parse(new TextDecoder().decode(this.tensor(tensor) as Uint8Array)) as Value;
  }

  private entry(tensor: string): Entry {
    const entry = this.entries[tensor];
    if (!entry) throw new ChunkTrouble("damaged", this.name);
    return entry;
  }
}
