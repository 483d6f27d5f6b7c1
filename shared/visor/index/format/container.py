"""The file format of shards, segments and projections: safetensors with checksums, a kind and a format version.

Any safetensors reader opens these files. What Visor adds lives in `__metadata__` (`kind`, `format`, `checksums` and
`about`) and in the first tensor, `header_digest`: BLAKE2b-128 of the header, which guards the checksums themselves.
Tensors start at multiples of 64 bytes, with `padding_…` tensors between them, since safetensors allows no holes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from visor.errors import CorruptObject, NewerFormat

FORMAT_VERSION = 1
"""Version that this Visor writes. It reads all versions up to this one."""

ALIGNMENT = 64
_DIGEST = "header_digest"
_DTYPES: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "U16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "U64": np.dtype("<u8"),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, dtype and shape of one tensor, and its place `[start, end)` in the file once laid out."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int = 0
    end: int = 0

    @property
    def size_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything goes in a file whose tensors' sizes are known but whose contents may not be yet."""

    kind: str
    about: Mapping[str, Any]
    tensors: dict[str, TensorSpec]
    data_start: int
    size_bytes: int

    @classmethod
    def of(cls, kind: str, about: Mapping[str, Any], specs: Sequence[TensorSpec]) -> Layout:
        """Lay tensors out in the order given, each at a multiple of 64 bytes."""
        placed = [TensorSpec(_DIGEST, np.dtype("u1"), (16,))]
        offset = 16
        for spec in specs:
            gap = -offset % ALIGNMENT
            if gap:
                placed.append(TensorSpec(f"padding_{len(placed)}", np.dtype("u1"), (gap,)))
            placed.append(spec)
            offset += gap + spec.size_bytes
        # The header's length does not depend on the offsets' base, since safetensors counts them from the header's end.
        draft = cls(kind, about, _place(placed, 0), 0, 0)
        data_start = len(draft._header({}))
        return cls(kind, about, _place(placed, data_start), data_start, data_start + offset)

    def header(self, checksums: Mapping[str, str]) -> bytes:
        """Length, JSON header and header digest: the first `data_start + 16` bytes of the file."""
        head = self._header(checksums)
        return head + hashlib.blake2b(head, digest_size=16).digest()

    def _header(self, checksums: Mapping[str, str]) -> bytes:
        names = [name for name in self.tensors if name != _DIGEST and not name.startswith("padding_")]
        metadata = {
            "kind": self.kind,
            "format": str(FORMAT_VERSION),
            "about": json.dumps(self.about, sort_keys=True),
            "checksums": json.dumps({name: checksums.get(name, "0" * 16) for name in names}),
        }
        entries: dict[str, Any] = {"__metadata__": metadata}
        for spec in self.tensors.values():
            entries[spec.name] = {
                "dtype": _CODES[spec.dtype],
                "shape": list(spec.shape),
                "data_offsets": [spec.start - self.data_start, spec.end - self.data_start],
            }
        text = json.dumps(entries).encode()
        text += b" " * (-(len(text) + 8) % ALIGNMENT)
        return len(text).to_bytes(8, "little") + text


@dataclass(frozen=True, slots=True)
class Container:
    """An open file: the contents of its header, and the bytes that were read from it (a prefix is enough)."""

    name: str
    about: dict[str, Any]
    tensors: dict[str, TensorSpec]
    checksums: dict[str, str]
    view: memoryview = field(repr=False)

    @classmethod
    def open(cls, name: str, view: memoryview, *, kind: str) -> Container:
        """Read the header.

        Args:
            name: The object's name, for errors.
            view: The object's bytes, or its first ones.
            kind: What kind it has to be: `shard`, `segment` or `projection`.

        Raises:
            CorruptObject: It is not such a file, or its header is damaged.
            NewerFormat: A later Visor wrote it.
        """
        length = int.from_bytes(view[:8], "little")
        if len(view) < 8 or length + 24 > len(view):
            raise corrupt(name, f"it ends after {len(view)} bytes, within its header")
        head = view[: 8 + length]
        try:
            entries = json.loads(bytes(head[8:]))
            metadata = entries.pop("__metadata__")
            version = int(metadata["format"])
            about, checksums = json.loads(metadata["about"]), json.loads(metadata["checksums"])
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise corrupt(name, "it does not have the header of a Visor file") from exc
        if version > FORMAT_VERSION:
            raise NewerFormat(
                f"{name} has format version {version}",
                valid=f"Versions up to {FORMAT_VERSION}",
                remedy="Install the Visor that wrote it, or a later one",
            )
        if hashlib.blake2b(head, digest_size=16).digest() != bytes(view[8 + length : 24 + length]):
            raise corrupt(name, "its header does not match the header's digest")
        if metadata.get("kind") != kind:
            raise corrupt(name, f"it is a {metadata.get('kind')}, not a {kind}")
        tensors = {}
        for tensor, entry in entries.items():
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            tensors[tensor] = TensorSpec(tensor, _DTYPES[entry["dtype"]], tuple(entry["shape"]), start, end)
        return cls(name, about, tensors, checksums, view)

    def __contains__(self, tensor: str) -> bool:
        return tensor in self.tensors

    def array(self, tensor: str, *, verify: bool = True) -> Array:
        """One tensor as a read-only view of the file's bytes.

        Raises:
            CorruptObject: There is no such tensor, it was cut off, or it does not match its checksum.
        """
        if tensor not in self.tensors:
            raise corrupt(self.name, f"it has no tensor {tensor}")
        spec = self.tensors[tensor]
        if spec.end > len(self.view):
            raise corrupt(self.name, f"it ends after {len(self.view)} bytes, before the end of {tensor} at {spec.end}")
        block = self.view[spec.start : spec.end]
        if verify and checksum(block) != self.checksums.get(tensor):
            raise corrupt(self.name, f"tensor {tensor} does not match its checksum")
        return np.frombuffer(block, spec.dtype).reshape(spec.shape)

    def json(self, tensor: str, type_: Any) -> Any:
        """One tensor of UTF-8 JSON, as the given type."""
        try:
            return msgspec.json.decode(self.array(tensor).tobytes(), type=type_)
        except msgspec.DecodeError as exc:
            raise corrupt(self.name, f"tensor {tensor} does not hold the JSON that belongs there") from exc


def pack(kind: str, about: Mapping[str, Any], tensors: Mapping[str, Array]) -> bytes:
    """A whole file in memory, with the tensors in the order given."""
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    layout = Layout.of(kind, about, [TensorSpec(n, a.dtype, a.shape) for n, a in arrays.items()])
    out = bytearray(layout.size_bytes)
    checksums = {}
    for name, array in arrays.items():
        data = array.tobytes()
        checksums[name] = checksum(data)
        out[layout.tensors[name].start : layout.tensors[name].end] = data
    head = layout.header(checksums)
    out[: len(head)] = head
    return bytes(out)


def json_tensor(value: Any) -> Array:
    """A value as a tensor of UTF-8 JSON."""
    return np.frombuffer(msgspec.json.encode(value), np.uint8)


def checksum(data: bytes | memoryview) -> str:
    """BLAKE2b-64 as 16 hex digits."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def flat_bytes(array: Array) -> memoryview:
    """The bytes of a C-contiguous array, without a copy."""
    return array.reshape(-1).view(np.uint8).data


def corrupt(name: str, why: str) -> CorruptObject:
    return CorruptObject(
        f"{name} is damaged: {why}",
        valid="An object as Visor wrote it, whole and unchanged",
        remedy="Restore it from a copy, or run `visor check --repair`",
    )


def _place(specs: Sequence[TensorSpec], base: int) -> dict[str, TensorSpec]:
    placed = {}
    for spec in specs:
        placed[spec.name] = TensorSpec(spec.name, spec.dtype, spec.shape, base, base + spec.size_bytes)
        base += spec.size_bytes
    return placed


def rows_in_blocks(count: int, rows: int) -> Iterator[tuple[int, int]]:
    """`[start, stop)` ranges of at most `rows` rows that cover `count`."""
    for start in range(0, count, rows):
        yield start, min(start + rows, count)
