"""Exports an index, killed (SIGKILL) before and after each file that is written, until a run ends; then once more after
the index has changed. After each death the export before is whole.

Argument: a folder to work in. Prints how many runs were killed each time, as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

from scripts.golden.private_index import item_id, make_export, open_index, put_commit
from tests.unit.ingest.faults.killed_crawl import STEPS_MAX, Steps

from visor.export.files import DATA, MANIFEST
from visor.schema.items import ShardCommit, Tombstone
from visor.storage import Stores
from visor.storage.local.objects import FolderObjects


def check_whole(site: Path) -> dict[str, str]:
    """The manifest, if there is one: all that it names is there, unharmed."""
    if not (site / MANIFEST).is_file():
        return {}
    manifest = json.loads((site / MANIFEST).read_bytes())
    text = json.dumps(manifest)
    names = [word for word in text.split('"') if word.endswith(".vsr")]
    for name in names:
        assert name.endswith(hashlib.sha256((site / DATA / name).read_bytes()).hexdigest()[:16] + ".vsr"), name
    assert (site / "index.html").is_file()
    return {"id": manifest["id"]}


def killed_exports(stores: Stores, home: Path, site: Path) -> int:
    before, kept = check_whole(site), home / "kept"
    shutil.copytree(site, kept, dirs_exist_ok=True)
    for last in range(1, STEPS_MAX):
        if last % 2:
            # Every second run begins anew, the others with what was left.
            shutil.rmtree(site)
            shutil.copytree(kept, site)
        child = os.fork()
        if not child:
            code = 1
            try:
                steps = Steps(last)
                for name in ("put", "delete"):
                    setattr(FolderObjects, name, steps.around(getattr(FolderObjects, name)))
                make_export(stores, home, site)
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        found = check_whole(site)
        if os.WIFEXITED(status):
            assert not os.WEXITSTATUS(status), "the export failed"
            assert found != before
            return last - 1
        assert os.WTERMSIG(status) == signal.SIGKILL
    raise AssertionError("no export came to its end")


def main() -> None:
    home = Path(sys.argv[1])
    with open_index("small", home) as stores:
        (home / "site").mkdir()
        killed = [killed_exports(stores, home, home / "site")]
        put_commit(stores, "e", ShardCommit(batch="e", tombstones=(Tombstone(id=item_id(12), version=2),)))
        killed.append(killed_exports(stores, home, home / "site"))
    print(json.dumps(killed))


if __name__ == "__main__":
    main()
