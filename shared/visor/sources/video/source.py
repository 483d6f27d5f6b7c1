"""`video`: frames of a video or a live stream (HLS). A frame is kept as a thumbnail and links to its second."""

from __future__ import annotations

import io
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Annotated, Any, ClassVar
from urllib.parse import unquote, urlsplit

import av  # noqa: F401 — a missing library is reported when the source is opened
from msgspec import Meta
from PIL import Image

from visor.errors import FetchFailed, NotConfigured, SettingsError, SourceError, SourceUnavailable
from visor.http.retry import RetryPolicy
from visor.image_readers.thumbnails import put_thumbnail
from visor.schema.items import Item
from visor.sources.client import RetryingClient
from visor.sources.contract import Page, Place, RowErrors, SourceConfig, SourceContext
from visor.sources.parse.item import make_item
from visor.sources.video.frame_selector import FrameSelector, as_jpeg, sampled
from visor.sources.video.hls import HlsPlaylist, HlsSegment, is_playlist, parse_playlist

PAGE_SIZE = 32
"""Frames in one page."""
PLAYLIST_LOOK_BYTES = 64
VALIDATORS = ("etag", "modified")
READS_MIN = 2
"""Complete reads of a video, after which the source only checks whether it has changed."""
SCENE_STEP_S = 0.5
"""Seconds between two frames that are checked for a new scene."""


class VideoConfig(SourceConfig, frozen=True, kw_only=True):
    """The keys of a `video` source."""

    url: Annotated[str, Meta(min_length=1)]
    """URL of a video or a playlist (HLS), or path of a file on this machine."""
    interval_s: Annotated[float, Meta(ge=0.1)] = 10.0
    """Seconds between two frames."""
    scenes: bool = False
    """Take a frame where a scene begins instead of at an interval."""
    page_url: str | None = None
    """Page to link to, with `#t=SECONDS` added; by default the video itself."""
    title: str | None = None
    collection: str | None = None
    licence: str | None = None
    author: str | None = None
    bytes_max: int = 4_000_000_000
    """Size of the video."""
    download_s: float = 3600.0
    """How long its download may take."""
    patience: RetryPolicy = RetryPolicy()


class VideoSource:
    """Reads a video from its start, and a live stream from where it stopped. A frame's key is its time."""

    Config: ClassVar[type[SourceConfig]] = VideoConfig

    def __init__(self, name: str, config: VideoConfig, context: SourceContext) -> None:
        if context.objects is None:
            raise NotConfigured("A video's frames need an object store to be kept in")
        self.name, self._config, self._objects = name, config, context.objects
        self._client = RetryingClient(name, context, patience=config.patience)
        self._url = config.url
        self._step_s = SCENE_STEP_S if config.scenes else config.interval_s
        scheme = urlsplit(config.url).scheme
        self._is_file = len(scheme) <= 1
        if scheme not in ("http", "https") and not self._is_file:
            raise SettingsError(f"sources.{name}.url has the scheme {scheme!r}", valid="http, https or a file's path")

    def read(self, checkpoint: Mapping[str, Any] | None) -> Iterator[Page]:
        """See `visor.sources.contract` for the contract."""
        at = checkpoint or {}
        with self._client.required(), tempfile.TemporaryFile() as file:
            # A frame counts as deleted only after two passes have missed it, so a changed video is read twice.
            is_known = at.get("at") is None and int(at.get("reads", 0)) >= READS_MIN
            validators = self._download(file, {name: at.get(name) for name in VALIDATORS} if is_known else {})
            file.seek(0)
            named = urlsplit(self._config.url).path.endswith((".m3u8", ".m3u"))
            is_stream = not self._is_file and (named or is_playlist(file.read(PLAYLIST_LOOK_BYTES)))
            file.seek(0)
            if validators is None:
                yield Page(partial=True, next_pass=dict(at))
            elif is_stream:
                yield from self._read_stream(parse_playlist(file.read(), self._url), at)
            else:
                yield from self._read_file(file, validators, at)

    def _read_file(
        self, file: IO[bytes], validators: Mapping[str, Any], checkpoint: Mapping[str, Any]
    ) -> Iterator[Page]:
        after_s = checkpoint.get("at")
        selector = FrameSelector(scenes=self._config.scenes, recent=checkpoint.get("recent"))
        items: list[Item] = []
        errors, found = RowErrors(), after_s is not None
        try:
            for seconds, frame in sampled(file, self._step_s, after_s):
                found = True
                if self._is_wanted(frame, selector, errors):
                    items.append(self._item(f"{seconds:.3f}", seconds, frame, link=True))
                    if len(items) == PAGE_SIZE:
                        yield errors.page(items, checkpoint={"at": seconds, "recent": selector.recent})
                        items, errors = [], RowErrors()
        except SourceError as exc:
            if not found:
                raise
            # Not under its URL, which may hold a secret. Frames that could not be read are not gone.
            errors.add(Place(self._file_name or self.name), exc.found)
        # A video that changed while its pass was under way is read again: frames of both would be mixed.
        is_whole = after_s is None and any(validators.values())
        known = {name: checkpoint.get(name) for name in VALIDATORS}
        reads = int(checkpoint.get("reads", 0)) + 1 if validators == known else 1
        yield errors.page(items, next_pass={**validators, "reads": reads} if is_whole else None)

    def _is_wanted(self, frame: Image.Image, selector: FrameSelector, errors: RowErrors) -> bool:
        reason = selector.skip_reason(frame)
        if reason:
            errors.pass_over(f"the frame is {reason}")
        return not reason

    def _download(self, file: IO[bytes], held: Mapping[str, Any]) -> dict[str, Any] | None:
        """Put the video into `file`; returns its validators, None if the known ones still apply."""
        if self._is_file:
            return self._copy(file, held)
        with self._client.stream(
            self._config.url, bytes_max=self._config.bytes_max, deadline_s=self._config.download_s, **held
        ) as stream:
            if stream.not_modified:
                return None
            self._url = stream.url
            for piece in stream.chunks:
                file.write(piece)
            return {"etag": stream.etag, "modified": stream.modified}

    def _copy(self, file: IO[bytes], held: Mapping[str, Any]) -> dict[str, Any] | None:
        path = Path(self._config.url).expanduser()
        try:
            status = path.stat()
            validator = f"{status.st_mtime_ns}-{status.st_size}"
            if held.get("modified") == validator:
                return None
            if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its writer
                raise SourceError(f"Source '{self.name}': {path} is not a file", valid="The path of a video")
            with path.open("rb") as video:
                while piece := video.read(1 << 20):
                    file.write(piece)
        except OSError as exc:
            raise SourceError(f"Source '{self.name}': {path} cannot be read: {exc.strerror}") from exc
        return {"etag": None, "modified": validator}

    def _read_stream(self, playlist: HlsPlaylist, checkpoint: Mapping[str, Any]) -> Iterator[Page]:
        """Segments after the one that was read last. Segments that a live stream no longer lists are gone; their frames
        stay."""
        if playlist.variant is not None:
            answer = self._client.get(playlist.variant)
            playlist = parse_playlist(answer.body, answer.url)
        at = {} if playlist.ended and checkpoint.get("ended") else dict(checkpoint)
        at = {"sequence": -1, "seconds": 0.0, "recent": [], **at}
        selector = FrameSelector(scenes=self._config.scenes, recent=at["recent"])
        new = [segment for segment in playlist.segments if segment.sequence > at["sequence"]]
        if not new and playlist.segments and playlist.segments[-1].sequence < at["sequence"]:
            # Its numbers have started over: the broadcaster has started another stream.
            new = list(playlist.segments)
        live = not playlist.ended
        for segment in new:
            errors = RowErrors()
            items = self._frames(segment, at["seconds"], selector, errors, link=not live)
            is_last = segment is new[-1]
            at = {
                "sequence": segment.sequence,
                "seconds": at["seconds"] + segment.seconds,
                "recent": selector.recent,
                # After a recording was read to its end, the next pass begins again.
                "ended": playlist.ended and is_last,
            }
            place = {"next_pass": at} if is_last else {"checkpoint": at}
            yield errors.page(items, partial=live, **place)
        if not new:
            nothing = {} if playlist.segments else {"no segment in the playlist": 1}
            yield Page(partial=True, next_pass=at, passed_over=nothing)

    def _frames(
        self, segment: HlsSegment, start_s: float, selector: FrameSelector, errors: RowErrors, *, link: bool
    ) -> list[Item]:
        """The frames of a segment that are worth a search; none if it cannot be read, as other segments still can."""
        items: list[Item] = []
        try:
            data = io.BytesIO(self._client.get(segment.url).body)
            # A segment is shorter than most intervals: at least its first frame is considered.
            for seconds, frame in sampled(data, self._step_s, None):
                if self._is_wanted(frame, selector, errors):
                    items.append(self._item(f"{segment.sequence}/{seconds:.3f}", start_s + seconds, frame, link=link))
        except SourceUnavailable:
            raise
        except (FetchFailed, SourceError) as exc:
            # Without its query, in which each playlist may have a new signature.
            errors.add(Place(segment.url.partition("?")[0]), exc.found)
        return items

    @property
    def _file_name(self) -> str:
        return unquote(urlsplit(self._config.url).path.rpartition("/")[2])

    def _item(self, key: str, seconds: float, frame: Image.Image, *, link: bool) -> Item:
        config = self._config
        page_url = config.page_url or (None if self._is_file else config.url)
        if page_url is not None and link:
            page_url = f"{page_url.partition('#')[0]}#t={seconds:g}"
        return make_item(
            self.name,
            key,
            put_thumbnail(self._objects, self.name, key, as_jpeg(frame)),
            page_url=page_url,
            title=config.title or self._file_name,
            collection=config.collection,
            licence=config.licence,
            author=config.author,
            extra={"seconds": f"{seconds:g}"},
        )
