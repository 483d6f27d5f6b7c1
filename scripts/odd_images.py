"""Give every picture below some folders to Visor; count those that gave a vector, a reason, or neither in time.

    python scripts/odd_images.py FOLDER... [--hostile] [--seconds 5] [--megabytes 400] [--decode-only] [--all]

Prints JSON: files, vectors, reasons, slowest_s, largest_mb (and which files those are), unexplained. A file is
unexplained if it gives neither a vector nor the reason why not, takes longer or more memory, or ends the process;
these, and with --all every file, are listed on standard error. Archives (ZIP, tar) are read as they are. --hostile adds
damaged copies of a few pictures of each format: bits flipped, ends missing, headers that announce 60,000 x 60,000.

A child process reads the files one after the other. The report has processor seconds, and by how much the file made the
child's memory grow at most: `clear_refs` resets the peak, which `getrusage` cannot do.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import re
import struct
import sys
import tarfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from visor.errors import ImageError
from visor.imaging.decode import decode_image
from visor.imaging.sniff import image_format
from visor.models.embedder import load_embedder
from visor.near_duplicates.perceptual_hash import perceptual_hash
from visor.settings import Settings

ENDINGS = re.compile(
    r"\.(3fr|arw|avifs?|bmp|cr[23]|dib|dng|erf|gif|hei[cf]|hif|j2[ck]|jfif|jp2|jpe|jpe?g|jp[fx]|jxl|mpo|mrw|nef|orf|pef"
    r"|png|raf|raw|rw2|srw|tiff?|webp|x3f)\Z",
    re.I,
)
VICTIMS_A_FORMAT, DAMAGES = 6, 40
ANNOUNCED = struct.pack(">II", 60_000, 60_000)
SIZES = {
    "PNG": rb"IHDR(.{8})",
    "HEIF": rb"ispe....(.{8})",
    "AVIF": rb"ispe....(.{8})",
    "JPEG2000": rb"ihdr(.{8})|\xff\x51....(.{8})",
}
"""Where a format has its width and height, as 32 bits each."""


def pictures(folder: Path, bytes_max: int) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every file whose name or first bytes are those of a picture."""
    for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
        if not path.is_file():
            continue
        if tarfile.is_tarfile(path):
            with tarfile.open(path) as archive:
                members = ((m.name, m.size, archive.extractfile(m)) for m in archive if m.isfile())
                found = ((name, file.read()) for name, size, file in members if file and size <= bytes_max)
                yield from ((f"{path.name}:{name}", data) for name, data in found if _is_picture(name, data))
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as zipped:
                names = (info.filename for info in zipped.infolist() if 0 < info.file_size <= bytes_max)
                found = ((name, zipped.read(name)) for name in names)
                yield from ((f"{path.name}:{name}", data) for name, data in found if _is_picture(name, data))
        elif path.stat().st_size <= bytes_max and _is_picture(path.name, data := path.read_bytes()):
            yield str(path), data


def damaged(name: str, data: bytes, form: str) -> Iterator[tuple[str, bytes]]:
    """Hostile copies of a picture, the same for the same picture."""
    random = Random(name)  # noqa: S311 - the same damage each time
    for number in range(DAMAGES):
        copy = bytearray(data)
        # Half of the damage is in headers, as their contents decide about time and memory.
        reach = min(len(copy), 400) if number % 2 else len(copy)
        for _ in range(random.choice((1, 3, 20))):
            copy[random.randrange(reach)] ^= 1 << random.randrange(8)
        yield f"{name} (bits {number})", bytes(copy)
        if number % 4 == 0:
            yield f"{name} (cut {number})", data[: random.randrange(1, len(data))]
            at = random.randrange(len(data))
            yield f"{name} (twice {number})", data[:at] + data[random.randrange(len(data)) :]
    announced = bytearray(data)
    for match in re.finditer(SIZES.get(form, rb"(?!)"), data, re.S):
        group = next(number for number, found in enumerate(match.groups(), 1) if found)
        announced[match.start(group) : match.end(group)] = ANNOUNCED
    if bytes(announced) != data:
        yield f"{name} (60,000 x 60,000)", bytes(announced)


def _is_picture(name: str, data: bytes) -> bool:
    return ENDINGS.search(name) is not None or image_format(data) is not None


def files(folders: list[Path], bytes_max: int, hostile: bool) -> Iterator[tuple[str, bytes]]:
    victims = Counter[str]()
    for folder in folders:
        for name, data in pictures(folder, bytes_max):
            yield name, data
            form = image_format(data)
            if hostile and form and 16 < len(data) < 2_000_000 and victims[form] < VICTIMS_A_FORMAT:
                victims[form] += 1
                yield from damaged(name, data, form)


def work(pipe: Connection, decode_only: bool) -> None:
    """Answer each file's bytes with the outcome, the seconds and the peak in MB."""
    warnings.simplefilter("ignore")
    settings = Settings.read()
    embedder = None if decode_only else load_embedder(settings)
    while True:
        try:
            data = pipe.recv_bytes()
        except EOFError:
            return
        # What earlier files left in the heap would hide what this one needs.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        began, before = time.process_time(), _memory_mb("VmRSS")
        try:
            picture = decode_image(data, pixels_max=settings.pixels_max, side_hint=299)
            perceptual_hash(picture.pixels)
            if embedder:
                embedder.embed([picture.pixels])
            outcome = f"{picture.format} {picture.width} x {picture.height}"
        except ImageError as exc:
            outcome = f"refused: {exc.found}"
        except Exception as exc:  # noqa: BLE001 - what this script looks for
            outcome = f"ERROR {type(exc).__name__}: {exc}"
        pipe.send((outcome, time.process_time() - began, _memory_mb("VmHWM") - before))


def _memory_mb(what: str) -> float:
    found = re.search(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


class Child:
    def __init__(self, decode_only: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, decode_only), daemon=True)
        self.process.start()
        theirs.close()
        # It has loaded everything when it has answered to a picture.
        self.ask(b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\1\0\1\0\0\2\2D\1\0;", 120)

    def ask(self, data: bytes, seconds: float) -> tuple[str, float, float]:
        """Raises EOFError if it died."""
        self.pipe.send_bytes(data)
        if not self.pipe.poll(seconds):
            self.process.kill()
            self.process.join()
            return f"ERROR: took more than {seconds:g} s", seconds, 0.0
        return self.pipe.recv()  # type: ignore[no-any-return]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="of pictures or archives")
    parser.add_argument("--hostile", action="store_true", help="damaged copies, too")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--megabytes", type=float, default=400)
    parser.add_argument("--decode-only", action="store_true", help="without the model")
    parser.add_argument("--all", action="store_true", help="print every file")
    options = parser.parse_args()
    child, counts, slowest, largest = None, Counter[str](), (0.0, ""), (0.0, "")
    for name, data in files(options.folders, Settings.read().fetch_bytes_max, options.hostile):
        if child is None or not child.process.is_alive():
            child = Child(options.decode_only)
        try:
            outcome, seconds, peak = child.ask(data, 4 * options.seconds)
        except (EOFError, ConnectionError):
            outcome, seconds, peak = "ERROR: the process died", 0.0, 0.0
            child = None
        wrong = outcome.startswith("ERROR") or seconds > options.seconds or peak > options.megabytes
        counts["unexplained" if wrong else "reasons" if outcome.startswith("refused") else "vectors"] += 1
        slowest, largest = max(slowest, (seconds, name)), max(largest, (peak, name))
        if wrong or options.all:
            told = f"{'WRONG' if wrong else 'ok':5} {seconds:6.2f} s {peak:6.0f} MB  {name}  {outcome[:160]}"
            print(told, file=sys.stderr, flush=True)
    result = {
        "files": counts.total(),
        **{what: counts[what] for what in ("vectors", "reasons")},
        "slowest_s": round(slowest[0], 2),
        "slowest": slowest[1],
        "largest_mb": round(largest[0]),
        "largest": largest[1],
        "unexplained": counts["unexplained"],
    }
    print(json.dumps(result, indent=1))
    return 1 if counts["unexplained"] else 0


if __name__ == "__main__":
    sys.exit(main())
