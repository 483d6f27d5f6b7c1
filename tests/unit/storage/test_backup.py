"""A backup taken while others write is one state, and comes back as it was."""

from __future__ import annotations

import errno
import io
import lzma
import os
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import click
import numpy as np
import pytest

from visor.cli.main import cli, main
from visor.errors import Conflict, CorruptObject, NewerFormat, NotFound, StoreUnavailable, VisorError
from visor.settings import Settings
from visor.storage import Stores, open_stores
from visor.storage.documents import Put
from visor.storage.local.backup import back_up, restore


def write_on(stores: Stores, ends: threading.Event) -> None:
    """Objects, each followed by the document that names it and, then, the end of the message that asked for it."""
    for number in range(10_000):
        if ends.is_set():
            return
        name = f"shards/{number:05}"
        stores.queue.publish([name.encode()])
        (message,) = stores.queue.receive(1, lease_s=60)
        stores.objects.put(name, name.encode() * 100)
        stores.objects.put("manifest", name.encode())
        stores.documents.commit([Put(collection="commits", key=f"{number:05}", data={"shard": name})])
        stores.queue.acknowledge(message)


def test_a_backup_under_load_is_one_state(tmp_path: Path) -> None:
    home, ends = tmp_path / "home", threading.Event()
    with open_stores(Settings(home=home, index="mine")) as stores:
        writer = threading.Thread(target=write_on, args=(stores, ends))
        writer.start()
        try:
            for number in range(8):
                back_up(home, "mine", tmp_path / f"{number}.tar")
        finally:
            ends.set()
            writer.join()
    for number in range(8):
        restore(home, f"again-{number}", tmp_path / f"{number}.tar")
        with open_stores(Settings(home=home, index=f"again-{number}")) as stores:
            committed = {document.data["shard"] for document in stores.documents.query("commits")}
            kept = {info.name for info in stores.objects.list("shards/")}
            assert committed <= kept, "what a document names is there"
            waiting = {message.body.decode() for message in stores.queue.receive(10, lease_s=1)}
            assert kept - committed <= waiting, "what is not finished is asked for still"
            for name in committed:
                assert bytes(stores.objects.get(name)) == name.encode() * 100


def test_what_is_written_later_does_not_change_a_backup(tmp_path: Path) -> None:
    with open_stores(Settings(home=tmp_path, index="mine")) as stores:
        stores.objects.put("manifest", b"old")
        back_up(tmp_path, "mine", tmp_path / "one.tar")
        stores.objects.put("manifest", b"new")
    restore(tmp_path, "before", tmp_path / "one.tar")
    with open_stores(Settings(home=tmp_path, index="before")) as stores:
        assert bytes(stores.objects.get("manifest")) == b"old"
        stores.objects.put("manifest", b"newer")
    assert not list((tmp_path / "indexes").glob(".*")), "nothing is left behind"
    assert (tmp_path / "one.tar").stat().st_mode & 0o077 == 0


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    with tarfile.open(path, "w"):
        pass


def _flip(what: bytes) -> Callable[[Path], None]:
    def flip(path: Path) -> None:
        whole = path.read_bytes()
        assert what in whole
        path.write_bytes(whole.replace(what, what.swapcase()))

    return flip


@pytest.mark.parametrize(
    ("damage", "error"),
    [(_cut, CorruptObject), (_empty, CorruptObject), (lambda p: p.write_bytes(b"x" * 9999), CorruptObject),
     (_flip(b"an object"), CorruptObject), (_flip(b"a document"), CorruptObject), (_flip(b"a message"), CorruptObject),
     (Path.unlink, NotFound)],
)  # fmt: skip
def test_a_damaged_backup_makes_no_index(tmp_path: Path, damage: object, error: type[VisorError]) -> None:
    with open_stores(Settings(home=tmp_path, index="mine")) as stores:
        stores.objects.put("segments/a", b"an object" + bytes(100_000))
        stores.documents.commit([Put(collection="items", key="a", data={"title": "a document"})])
        stores.queue.publish([b"a message"])
        back_up(tmp_path, "mine", tmp_path / "one.tar")
    damage(tmp_path / "one.tar")  # type: ignore[operator]
    with pytest.raises(error):
        restore(tmp_path, "again", tmp_path / "one.tar")
    assert sorted(path.name for path in (tmp_path / "indexes").iterdir()) == ["mine"]


def test_a_damaged_compressed_backup_makes_no_index(tmp_path: Path) -> None:
    with open_stores(Settings(home=tmp_path, index="mine")) as stores:
        stores.objects.put("segments/a", np.random.default_rng(0).bytes(100_000))
        back_up(tmp_path, "mine", tmp_path / "one.tar")
    pressed = bytearray(lzma.compress((tmp_path / "one.tar").read_bytes()))
    pressed[len(pressed) // 2] ^= 1
    (tmp_path / "one.tar.xz").write_bytes(pressed)
    with pytest.raises(CorruptObject, match="cannot be read as a backup"):
        restore(tmp_path, "again", tmp_path / "one.tar.xz")


def test_a_full_disk_is_no_fault_of_the_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_stores(Settings(home=tmp_path, index="mine")):
        back_up(tmp_path, "mine", tmp_path / "one.tar")

    def extractall(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "extractall", extractall)
    with pytest.raises(StoreUnavailable, match=r"could not be unpacked .*: No space left on device.*Make room"):
        restore(tmp_path, "again", tmp_path / "one.tar")
    assert sorted(path.name for path in (tmp_path / "indexes").iterdir()) == ["mine"]


def test_a_database_that_cannot_be_copied_is_named(tmp_path: Path) -> None:
    with open_stores(Settings(home=tmp_path, index="mine")) as stores:
        stores.documents.commit([Put(collection="items", key="a", data={"title": "a document"})])
    (tmp_path / "indexes" / "mine" / "documents.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(CorruptObject, match=r"documents\.sqlite is not a readable SQLite database"):
        back_up(tmp_path, "mine", tmp_path / "one.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["indexes"]


def test_what_a_newer_visor_wrote_is_said_so(tmp_path: Path) -> None:
    with open_stores(Settings(home=tmp_path, index="mine")):
        back_up(tmp_path, "mine", tmp_path / "one.tar")
    with tarfile.open(tmp_path / "one.tar") as tar:
        tar.extractall(tmp_path / "out", filter="data")
    with tarfile.open(tmp_path / "two.tar", "w") as tar:
        tar.add(tmp_path / "out" / "visor-index-1", "visor-index-2")
    with pytest.raises(NewerFormat, match="visor-index-2"):
        restore(tmp_path, "again", tmp_path / "two.tar")


def test_what_killed_backups_left_goes_and_what_runs_stays(tmp_path: Path) -> None:
    with open_stores(Settings(home=tmp_path, index="mine")) as stores:
        stores.objects.put("manifest", b"old")
    left, runs = tmp_path / "indexes" / ".backup-left", tmp_path / "indexes" / ".backup-runs"
    for folder, age_s in ((left, 3 * 86_400), (runs, 3_600)):
        folder.mkdir()
        os.utime(folder, (time.time() - age_s,) * 2)
    back_up(tmp_path, "mine", tmp_path / "one.tar")
    assert (left.exists(), runs.exists()) == (False, True)


def test_backups_and_restores_at_once_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_stores(Settings(home=tmp_path, index="mine")) as stores:
        stores.objects.put("manifest", b"old")
    add = tarfile.TarFile.add

    def add_after_another(tar: tarfile.TarFile, *names: Any) -> None:
        monkeypatch.setattr(tarfile.TarFile, "add", add)
        back_up(tmp_path, "mine", tmp_path / "one.tar")
        tar.add(*names)

    monkeypatch.setattr(tarfile.TarFile, "add", add_after_another)
    with pytest.raises(Conflict, match=r"one\.tar exists already"):
        back_up(tmp_path, "mine", tmp_path / "one.tar")
    assert [path.name for path in tmp_path.glob("one.tar*")] == ["one.tar"]
    rename = Path.rename

    def rename_after_another(path: Path, target: Path) -> None:
        monkeypatch.setattr(Path, "rename", rename)
        restore(tmp_path, "again", tmp_path / "one.tar")
        path.rename(target)

    monkeypatch.setattr(Path, "rename", rename_after_another)
    with pytest.raises(Conflict, match="There is an index 'again'"):
        restore(tmp_path, "again", tmp_path / "one.tar")
    with open_stores(Settings(home=tmp_path, index="again")) as stores:
        assert bytes(stores.objects.get("manifest")) == b"old"


def test_a_disk_without_links_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with open_stores(Settings(home=tmp_path, index="mine")) as stores:
        stores.objects.put("manifest", b"old")
        back_up(tmp_path, "mine", tmp_path / "one.tar")
    restore(tmp_path, "again", tmp_path / "one.tar")
    with open_stores(Settings(home=tmp_path, index="again")) as stores:
        assert bytes(stores.objects.get("manifest")) == b"old"


@pytest.mark.parametrize("command", [["backup", "none/b.tar"], ["serve", "--log", "none/visor.log"]])
def test_a_path_that_cannot_be_written_is_one_line(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VISOR_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with open_stores(Settings(home=tmp_path)) as stores:
        stores.objects.put("manifest", b"old")
    with pytest.raises(SystemExit) as ended:
        main(command)
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert said.startswith("visor: ")
    assert "cannot be used: No such file or directory" in said


def test_control_c_ends_a_command_with_its_own_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VISOR_HOME", str(tmp_path))
    monkeypatch.setattr("visor.storage.existing", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(SystemExit) as ended:
        main(["failures"])
    assert (ended.value.code, capsys.readouterr().err) == (130, "Interrupted\n")


@pytest.mark.parametrize(("encoding", "shown"), [("latin-1", b"? caf\xe9\n"), ("utf-8", "✓ café\n".encode())])
def test_what_a_terminal_cannot_show_ends_no_command(
    encoding: str, shown: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(terminal, encoding))
    monkeypatch.setattr(cli, "main", lambda **_: click.echo("✓ café"))
    main([])
    assert terminal.getvalue() == shown


def test_neither_overwrites(tmp_path: Path) -> None:
    with open_stores(Settings(home=tmp_path, index="mine")) as stores:
        stores.objects.put("manifest", b"old")
    back_up(tmp_path, "mine", tmp_path / "one.tar")
    with pytest.raises(Conflict, match="exists already"):
        back_up(tmp_path, "mine", tmp_path / "one.tar")
    with pytest.raises(Conflict, match="There is an index 'mine'"):
        restore(tmp_path, "mine", tmp_path / "one.tar")
