"""Downloads the demo's images, once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from visor.demo.catalogue import DemoCatalogue
from visor.demo.emoji import emoji
from visor.demo.stamps import stamps
from visor.errors import FormatError, SourceUnavailable
from visor.storage import folder_lock, private_folder, scratch_folder

Provider = Callable[[Path, Path, Callable[[str], None]], DemoCatalogue]

PROVIDERS: dict[str, Provider] = {"stamps": stamps, "emoji": emoji}
"""Each downloads a package into its first folder and unpacks it into its second. The first that works is used."""


def ensure_demo_pictures(home: Path, say: Callable[[str], None]) -> DemoCatalogue:
    """The demo's catalogue below `home`/demo, downloaded if it is not there yet.

    Several processes may do this at the same time: one downloads, the others wait and find it.

    Args:
        home: `settings.home`.
        say: Called with a line before each step that takes long.

    Raises:
        SourceUnavailable: No package can be downloaded; the message says why for each.
    """
    with folder_lock(home / "demo", say):
        return _kept(home / "demo", say) or _downloaded(home / "demo", say)


def _kept(demo: Path, say: Callable[[str], None]) -> DemoCatalogue | None:
    for name in PROVIDERS:
        try:
            return DemoCatalogue.load(demo / name)
        except FileNotFoundError:
            continue
        except FormatError as exc:
            say(f"{exc} Downloading it again.")
            shutil.rmtree(demo / name)
    return None


def _downloaded(demo: Path, say: Callable[[str], None]) -> DemoCatalogue:
    reasons = []
    for name, provider in PROVIDERS.items():
        try:
            return _provide(demo, name, provider, say)
        except SourceUnavailable as exc:
            reasons.append(f"{name}: {exc.found}")
            say(f"Not available here: {exc.found}")
    raise SourceUnavailable(
        f"The demo's pictures cannot be downloaded ({'; '.join(reasons)})",
        valid="Debian's archive through apt-get, or npm",
        remedy="Go online, or index pictures of your own: make demo SOURCE=~/Pictures",
    )


def _provide(demo: Path, name: str, provider: Provider, say: Callable[[str], None]) -> DemoCatalogue:
    """Have `provider` fill a new folder, which replaces the old one only when it is complete."""
    private_folder(demo)
    with scratch_folder(demo, f".{name}-") as work:
        unpacked = Path(work) / "pictures"
        unpacked.mkdir()
        catalogue = provider(Path(work), unpacked, say)
        catalogue.save(unpacked)
        shutil.rmtree(demo / name, ignore_errors=True)
        unpacked.rename(demo / name)
    return DemoCatalogue.load(demo / name)
