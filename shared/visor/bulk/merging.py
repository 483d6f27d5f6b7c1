"""A merge whose segments Beam's workers build. It is planned here, and committed here in one swap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from visor.bulk.run import poll_s_of, run
from visor.bulk.waiting import Waiting
from visor.console import progress
from visor.index.format.manifest import SegmentEntry
from visor.index.merge.inputs import Inputs
from visor.index.merge.pieces import FOLDER, Piece, build_waiting, built, put_piece
from visor.index.merge.segment_builder import SegmentBuilder
from visor.settings import Settings


@dataclass(frozen=True)
class BeamBuild:
    """A merge's `Build`: each piece is an element of a pipeline. flags, runner: Beam's."""

    settings: Settings
    flags: Sequence[str]
    runner: str
    say: Callable[[str], None]

    def __call__(self, index: Inputs, pieces: Sequence[Piece], builder: SegmentBuilder) -> list[SegmentEntry]:
        rows = {put_piece(piece, builder, index): len(piece) for piece in pieces}

        def waiting() -> list[Waiting]:
            found = {info.name.removeprefix(FOLDER) for info in index.objects.list(FOLDER)}
            return [Waiting(name, "", count) for name, count in rows.items() if name in found]

        arguments = self.flags, "merge", self.settings, list(rows)
        self.say(f"{len(waiting())} of {len(rows)} segments, with {sum(rows.values())} images, are to be built")
        if len(waiting()) > 1:  # a single segment is built here just as fast
            with progress("Built", sum(one.pictures for one in waiting())) as advance:
                poll_s = poll_s_of(self.settings)
                run(waiting, self.runner, lambda _: arguments, advance=advance, say=self.say, poll_s=poll_s)
        for name in rows:
            # Workers skip pieces that cannot be built, or belong to a replaced manifest: they are reported here.
            build_waiting(index.objects, index.documents, name)
        return [built(index.objects, name) for name in rows]
