"""Selects the frames of a video that are worth a search: not black, blurred or repeated ones."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from PIL import Image

from visor.errors import SourceError
from visor.image_readers.thumbnails import THUMBNAIL_BYTES_MAX
from visor.near_duplicates.fingerprint import PDQ_BYTES, hash_distances
from visor.near_duplicates.perceptual_hash import perceptual_hash
from visor.near_duplicates.thresholds import SAME_BITS

DARK = 16.0
"""Mean luma (0 to 255) below which a frame is black."""
FLAT = 4.0
"""Standard deviation of luma below which a frame shows nothing."""
BLURRED = 12.0
"""Variance of the Laplacian of luma, at 256 pixels' width, below which a frame is blurred."""
SCENE_BITS = 72
"""Bits of PDQ by which a new scene differs from the last kept frame; unrelated frames differ by about 128."""
RECENT = 16
"""Last kept frames, which a new one must not repeat."""
SIDE_MAX = 640
TIMED = frozenset({"mov", "matroska"})
"""FFmpeg's names of containers that state their length."""
CUT_S, CUT_SHARE = 0.5, 0.01
"""What may be missing at the end of a video, in seconds or as a share of its length, which is only this exact."""
FORMATS = "mov,matroska,avi,mpeg,mpegts,flv,asf,ogg,mxf,dv"
"""FFmpeg's names of the containers that it may recognise: not playlists, which name other files."""


def sampled(file: IO[bytes], every_s: float, after_s: float | None) -> Iterator[tuple[float, Image.Image]]:
    """Frames of a video later than `after_s` and at least `every_s` apart, as they are shown, with their seconds.

    Raises:
        SourceError: There is no video in the file; or, after the last frame that can be read, a part of it could not
            be decoded or is missing.
    """
    import av

    try:
        container = av.open(file, "r", options={"format_whitelist": FORMATS, "protocol_whitelist": "none"})
    except av.FFmpegError as exc:
        file.seek(0)
        raise SourceError(
            f"The video cannot be read: there is no video in it ({exc.strerror}); it begins with {file.read(12)!r}",
            valid="MP4, MOV, Matroska, WebM, AVI, MPEG, AVCHD, FLV, WMV, Ogg or MXF",
        ) from exc
    with container:
        streams: list[Any] = [one for one in container.streams.video if not _is_cover(one)]
        if not streams:
            raise SourceError("There is no video in it, only sound", valid="A file with moving pictures")
        stream = streams[0]
        stream.thread_type = "AUTO"
        lost = _Lost(container)
        if after_s is not None and stream.time_base and container.format.name != "mpegts":
            with lost.noted():
                container.seek(int(after_s / stream.time_base), stream=stream)
        first, due = stream.start_time or 0, 0.0 if after_s is None else after_s + every_s
        for frame in _frames(container, stream, lost):
            seconds = float((frame.pts - first) * stream.time_base) if frame.pts is not None else due
            if seconds + 1e-6 >= due:
                yield seconds, _shown(frame, stream)
                due = seconds + every_s
        if told := lost.told():
            raise SourceError(told)


class _Lost:
    """Collects the parts of a video that cannot be read."""

    def __init__(self, container: Any) -> None:
        self._container = container
        self._pieces, self._why, self._end_s = 0, "", 0.0

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Continue after a part that cannot be decoded, as players do."""
        import av

        try:
            yield
        except av.FFmpegError as exc:
            self._pieces, self._why = self._pieces + 1, exc.strerror or str(exc)

    def saw(self, packet: Any) -> None:
        if packet.pts is not None and packet.time_base:
            self._end_s = max(self._end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))

    def told(self) -> str:
        """The loss, as a sentence; empty if there is none."""
        if self._pieces:
            return f"Not all of the video can be decoded: {self._pieces} of its pieces are broken ({self._why})"
        container = self._container
        # Of other formats FFmpeg estimates how long they are.
        if container.duration and TIMED & {*container.format.name.split(",")}:
            # From 0 or from the first frame, as the program chose; a text may continue after the last frame.
            heard = [one for one in _streams(container) if one.duration]
            ends_s = [float(one.duration * one.time_base) for one in heard] or [math.inf]
            whole_s = min(container.duration / 1e6, max(ends_s))
            if whole_s - self._end_s > max(CUT_S, CUT_SHARE * whole_s):
                return f"The video breaks off at {self._end_s:.0f} of {whole_s:.0f} s"
        return ""


def _streams(container: Any) -> list[Any]:
    """The streams that are seen or heard: not a camera's data, nor fonts that a film contains."""
    return [*container.streams.video, *container.streams.audio, *container.streams.subtitles]


def _frames(container: Any, stream: Any, lost: _Lost) -> Iterator[Any]:
    """The frames of a stream that can be decoded."""
    packets = container.demux(_streams(container))
    while True:
        packet, frames = None, list[Any]()
        with lost.noted():
            packet = next(packets, None)
        if packet is None:
            return
        lost.saw(packet)
        if packet.stream is stream:
            with lost.noted():
                frames = packet.decode()
        yield from frames


def _is_cover(stream: Any) -> bool:
    """Whether a 'video' is only the cover of a piece of music."""
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def _shown(frame: Any, stream: Any) -> Image.Image:
    """A frame as players show it: with square pixels, and upright."""
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1
    image: Image.Image = frame.to_image(width=max(1, round(frame.width * aspect)), height=frame.height)
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image


class FrameSelector:
    """Chooses frames, one after the other. `recent` is its memory, in the form that a checkpoint keeps.

    Args:
        scenes: Take a frame only when a new scene begins.
    """

    def __init__(self, *, scenes: bool, recent: list[str] | None = None) -> None:
        self._scenes = scenes
        self.recent = list(recent or [])

    def skip_reason(self, frame: Image.Image) -> str:
        """Why a frame is left out; empty if it is kept."""
        luma = np.asarray(frame.convert("L").resize((256, max(1, 256 * frame.height // frame.width))), np.float32)
        if luma.mean() < DARK:
            return "black"
        if luma.std() < FLAT:
            return "blank"
        if _sharpness(luma) < BLURRED:
            return "blurred"
        own = np.frombuffer(bytes(perceptual_hash(frame)), np.uint8)[:PDQ_BYTES]
        if self.recent:
            distances = hash_distances(np.stack([_bits(old) for old in self.recent]), own)
            if distances.min() <= SAME_BITS:
                return "repeated"
            if self._scenes and distances[-1] < SCENE_BITS:
                return "same scene"
        self.recent = [*self.recent, own.tobytes().hex()][-RECENT:]
        return ""


def as_jpeg(frame: Image.Image) -> bytes:
    """A frame as a small JPEG."""
    small = frame.convert("RGB")
    small.thumbnail((SIDE_MAX, SIDE_MAX), Image.Resampling.LANCZOS)
    for quality in (85, 60, 30):
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= THUMBNAIL_BYTES_MAX:
            break
    return buffer.getvalue()


def _sharpness(luma: Any) -> float:
    """Variance of the Laplacian of (h, w) float32 (Pech-Pacheco et al., 2000)."""
    inner = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner
    return float(laplacian.var()) if laplacian.size else 0.0


def _bits(text: str) -> Any:
    return np.frombuffer(bytes.fromhex(text), np.uint8)
