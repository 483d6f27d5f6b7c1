"""Give every picture below some folders to Visor, and tell which take too long or too much memory.

    python scripts/odd_images.py FOLDER... [--seconds 5] [--megabytes 400] [--decode-only]

A file is right if it gives a vector or its reason. Archives (ZIP, tar) are read as they are. A child takes the files
one after the other. Told are the processor's seconds, and by how much the file made the child's memory grow at most.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
import tarfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from visor.errors import ImageError
from visor.imaging.decode import decode_image
from visor.imaging.sniff import image_format
from visor.models.embedder import load_embedder
from visor.near_duplicates.fingerprint import perceptual_hash
from visor.settings import Settings

ENDINGS = re.compile(
    r"\.(3fr|arw|avifs?|bmp|cr[23]|dib|dng|erf|gif|hei[cf]|hif|j2[ck]|jfif|jp2|jpe?|jpe?g|jp[fx]|jxl|mpo|mrw|nef|orf|pef"
    r"|png|raf|raw|rw2|srw|tiff?|webp|x3f)\Z",
    re.I,
)


def pictures(folder: Path, bytes_max: int) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every file that is named like a picture or begins like one."""
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


def _is_picture(name: str, data: bytes) -> bool:
    return ENDINGS.search(name) is not None or image_format(data) is not None


def work(pipe: Connection, decode_only: bool) -> None:
    """Answer each file's bytes with what came out, the seconds and the peak in MB."""
    warnings.simplefilter("ignore")
    settings = Settings.read()
    embedder = None if decode_only else load_embedder(settings)
    while True:
        data = pipe.recv_bytes()
        _reset_peak()
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


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


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
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--megabytes", type=float, default=400)
    parser.add_argument("--decode-only", action="store_true", help="without the model")
    parser.add_argument("--all", action="store_true", help="print every file")
    options = parser.parse_args()
    child, counts, slowest, largest, bad = None, Counter[str](), (0.0, ""), (0.0, ""), 0
    for folder in options.folders:
        for name, data in pictures(folder, Settings.read().fetch_bytes_max):
            if child is None or not child.process.is_alive():
                child = Child(options.decode_only)
                child.ask(b"x", 120)  # it has loaded everything when it has answered
            try:
                outcome, seconds, peak = child.ask(data, 4 * options.seconds)
            except (EOFError, ConnectionError):
                outcome, seconds, peak = "ERROR: the process died", 0.0, 0.0
                child = None
            wrong = outcome.startswith("ERROR") or seconds > options.seconds or peak > options.megabytes
            bad += wrong
            counts["refused" if outcome.startswith("refused") else outcome.split()[0]] += 1
            slowest, largest = max(slowest, (seconds, name)), max(largest, (peak, name))
            if wrong or options.all:
                print(
                    f"{'WRONG' if wrong else 'ok':5} {seconds:6.2f} s {peak:6.0f} MB  {name}  {outcome[:160]}",
                    flush=True,
                )
    print(f"{sum(counts.values())} pictures: " + ", ".join(f"{n} {what}" for what, n in counts.most_common()))
    print(f"slowest {slowest[0]:.2f} s ({slowest[1]}); most memory {largest[0]:.0f} MB ({largest[1]})")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
