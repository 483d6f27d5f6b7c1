"""Hostile and unusual picture files, made by code, the same bytes every time.

`GOOD` maps a name to (bytes, what must come out); `BAD` maps a name to (bytes, words that the reason must hold).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pillow_heif
from PIL import Image, ImageChops, ImageCms, ImageDraw, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo

pillow_heif.register_heif_opener()

WIDTH, HEIGHT = 96, 64
RED, GREEN, BLUE, WHITE = (200, 30, 40), (30, 160, 60), (40, 60, 190), (255, 255, 255)


@dataclass(frozen=True)
class Expected:
    """Size upright, format, and colours (x and y as fractions of the picture) within a tolerance."""

    format: str
    size: tuple[int, int] = (WIDTH, HEIGHT)
    corners: tuple[tuple[int, int, int], ...] = (RED, GREEN, BLUE, WHITE)
    """Colours in the middle of the upper left, upper right, lower left, lower right quarter."""
    tolerance: int = 14
    frame: int = 0


def quarters() -> Image.Image:
    """Red, green / blue, white: any rotation, flip or colour mistake shows."""
    image = Image.new("RGB", (WIDTH, HEIGHT), WHITE)
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, WIDTH // 2 - 1, HEIGHT // 2 - 1), fill=RED)
    pen.rectangle((WIDTH // 2, 0, WIDTH, HEIGHT // 2 - 1), fill=GREEN)
    pen.rectangle((0, HEIGHT // 2, WIDTH // 2 - 1, HEIGHT), fill=BLUE)
    return image


def photo() -> Image.Image:
    """Smooth noise, so that encoders have something to do."""
    noise = np.random.default_rng(7).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """One PNG chunk with a right checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def png_with(extra: bytes) -> bytes:
    """The four quarters with further chunks after the header."""
    data = encoded(quarters(), "PNG")
    return data[:33] + extra + data[33:]


def box(kind: bytes, body: bytes) -> bytes:
    """One box of a JPEG 2000 or JPEG XL file."""
    return struct.pack(">I", 8 + len(body)) + kind + body


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def frames(*images: Image.Image, form: str, **options: object) -> bytes:
    first, *others = images
    return encoded(first, form, save_all=True, append_images=others, **options)


def grey16() -> bytes:
    values = np.asarray(quarters().convert("L")).astype(np.uint16) * 257
    return encoded(Image.fromarray(values), "PNG")


def rgb16() -> bytes:
    rows = np.asarray(quarters()).astype(">u2") * 257
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    return png(WIDTH, HEIGHT, chunk(b"IDAT", zlib.compress(raw)), depth=16)


def palette_with_alpha() -> bytes:
    image = quarters().convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    white = image.getpixel((WIDTH - 1, HEIGHT - 1))
    opacities = bytes(0 if index == white else 255 for index in range(8))
    return encoded(image, "PNG", transparency=opacities)


def with_hole(mode: str) -> Image.Image:
    """The four quarters, the white one being black and transparent instead."""
    image = quarters().convert("RGBA")
    ImageDraw.Draw(image).rectangle((WIDTH // 2, HEIGHT // 2, WIDTH, HEIGHT), fill=(0, 0, 0, 0))
    return image.convert(mode)


def bmp_with_alpha(image: Image.Image, alpha: int) -> bytes:
    """Of 32 bits with a mask for the alpha, as Windows' clipboard has it."""
    image = image.convert("RGBA")
    image.putalpha(alpha)
    pixels = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).tobytes("raw", "BGRA")
    size = 40 + 16 + 52
    head = struct.pack("<IiiHHIIiiII", size, *image.size, 1, 32, 3, len(pixels), 2835, 2835, 0, 0)
    head += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(52)
    return b"BM" + struct.pack("<IHHI", 14 + size + len(pixels), 0, 0, 14 + size) + head + pixels


def tiff_of_pages(*pages: tuple[Image.Image, int], **options: object) -> bytes:
    """Pages with what each is: 1 a thumbnail, 4 a mask, 0 a whole picture."""
    out = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(out, True) as writer:
        for image, kind in pages:
            image.save(writer, "TIFF", tiffinfo={254: kind}, **options)
            writer.newFrame()
    return out.getvalue()


def swapped_profile() -> bytes:
    """A file whose red and green numbers are exchanged, with a profile that says so."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    count = struct.unpack(">I", srgb[128:132])[0]
    table = bytearray(srgb)
    table[24:36] = bytes(12)  # when it was made: the file is to be the same at any time
    at = {srgb[132 + 12 * i : 136 + 12 * i]: 132 + 12 * i for i in range(count)}
    red, green = at[b"rXYZ"], at[b"gXYZ"]
    table[red : red + 4], table[green : green + 4] = b"gXYZ", b"rXYZ"
    described = at[b"desc"]
    table[described : described + 4] = b"dxxx"
    r, g, b = quarters().split()
    return encoded(Image.merge("RGB", (g, r, b)), "PNG", icc_profile=bytes(table))


def greys() -> tuple[tuple[int, int, int], ...]:
    image = quarters().convert("L")
    spots = [(24, 16), (72, 16), (24, 48), (72, 48)]
    return tuple((value, value, value) for value in (image.getpixel(spot) for spot in spots))


def _good() -> dict[str, tuple[bytes, Expected]]:
    image, blank = quarters(), Image.new("RGB", (WIDTH, HEIGHT), "white")
    grey = Expected("PNG", corners=greys())
    upright = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    made: dict[str, tuple[bytes, Expected]] = {
        "jpeg": (encoded(image, "JPEG", quality=95, subsampling=0), Expected("JPEG")),
        "jpeg progressive": (encoded(image, "JPEG", quality=95, progressive=True), Expected("JPEG")),
        "jpeg grey": (encoded(image.convert("L"), "JPEG"), Expected("JPEG", corners=greys())),
        "jpeg cmyk": (encoded(image.convert("CMYK"), "JPEG", quality=95), Expected("JPEG")),
        "jpeg mpo": (frames(image, blank, form="MPO", quality=95, subsampling=0), Expected("JPEG")),
        "jpeg with broken exif": (
            encoded(image, "JPEG", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
            Expected("JPEG"),
        ),
        "jpeg with junk after it": (encoded(image, "JPEG", quality=95) + b"\0" * 999, Expected("JPEG")),
        "png": (encoded(image, "PNG"), Expected("PNG")),
        "png interlaced 16 bit": (rgb16(), Expected("PNG")),
        "png with a long text": (_png_of_long_text(), Expected("PNG")),
        "png grey 16 bit": (grey16(), grey),
        "png 1 bit": (
            encoded(image.convert("1", dither=Image.Dither.NONE), "PNG"),
            Expected("PNG", corners=((0, 0, 0), (0, 0, 0), (0, 0, 0), WHITE)),
        ),
        "png palette": (encoded(image.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"), Expected("PNG")),
        "png palette with alpha": (palette_with_alpha(), Expected("PNG")),
        "png rgba": (encoded(with_hole("RGBA"), "PNG"), Expected("PNG")),
        "png grey with alpha": (encoded(with_hole("LA"), "PNG"), grey),
        "png colour key": (
            encoded(image, "PNG", transparency=RED),
            Expected("PNG", corners=(WHITE, GREEN, BLUE, WHITE)),
        ),
        "png orientation": (encoded(image.transpose(upright[6]), "PNG", exif=exif(6)), Expected("PNG")),
        "png with profile": (swapped_profile(), Expected("PNG", tolerance=20)),
        "png with broken profile": (encoded(image, "PNG", icc_profile=b"no profile" * 50), Expected("PNG")),
        "png with huge profile": (
            encoded(image, "TIFF", icc_profile=b"\0" * 5_000_000, compression="tiff_deflate"),
            Expected("TIFF"),
        ),
        "webp": (encoded(image, "WEBP", lossless=True), Expected("WEBP")),
        "webp with alpha": (encoded(with_hole("RGBA"), "WEBP", lossless=True), Expected("WEBP")),
        "gif": (encoded(image, "GIF"), Expected("GIF")),
        "gif of blank frames first": (
            frames(blank, Image.new("RGB", image.size, "black"), image, form="GIF", duration=50),
            Expected("GIF", frame=2),
        ),
        "png of blank frames first": (frames(blank, image, form="PNG", duration=50), Expected("PNG", frame=1)),
        "webp of blank frames first": (
            frames(blank, image, form="WEBP", lossless=True, duration=50),
            Expected("WEBP", frame=1),
        ),
        "avif of blank frames first": (
            frames(blank, image, form="AVIF", quality=95, duration=50),
            Expected("AVIF", frame=1),
        ),
        "gif of nothing but blank frames": (
            frames(blank, Image.new("RGB", image.size, "#fefefe"), form="GIF", duration=50),
            Expected("GIF", corners=(WHITE,) * 4),
        ),
        "tiff thumbnail first": (tiff_of_pages((blank.resize((12, 8)), 1), (image, 0)), Expected("TIFF")),
        "tiff mask first": (tiff_of_pages((blank.convert("1"), 4), (image, 0)), Expected("TIFF")),
        "tiff only a thumbnail": (tiff_of_pages((image, 1)), Expected("TIFF")),
        "tiff two pages": (tiff_of_pages((image, 0), (blank, 0)), Expected("TIFF")),
        "bmp": (encoded(image, "BMP"), Expected("BMP")),
        "bmp whose alpha is 0": (bmp_with_alpha(image, 0), Expected("BMP")),
        "tiff": (encoded(image, "TIFF"), Expected("TIFF")),
        "tiff of pages": (frames(image, blank, form="TIFF"), Expected("TIFF")),
        "tiff cmyk": (encoded(image.convert("CMYK"), "TIFF", compression="tiff_lzw"), Expected("TIFF")),
        "tiff lab": (encoded(lab(image), "TIFF"), Expected("TIFF", tolerance=20)),
        "tiff float": (
            encoded(Image.fromarray(np.asarray(image.convert("L")).astype(np.float32) / 255.5), "TIFF"),
            Expected("TIFF", corners=greys()),
        ),
        "tiff 32 bit": (
            encoded(Image.fromarray(np.asarray(image.convert("L")).astype(np.int32) * 256), "TIFF"),
            Expected("TIFF", corners=greys()),
        ),
        "avif": (encoded(image, "AVIF", quality=95, subsampling="4:4:4"), Expected("AVIF")),
        "heic": (encoded(image, "HEIF", quality=95, chroma=444), Expected("HEIF")),
        "heic orientation": (
            encoded(image.transpose(upright[6]), "HEIF", quality=95, chroma=444, exif=exif(6)),
            Expected("HEIF"),
        ),
        "named wrongly": (encoded(image, "PNG"), Expected("PNG")),
    }
    made |= _of_cameras_and_scanners()
    for orientation, how in upright.items():
        data = encoded(image.transpose(how), "JPEG", quality=95, subsampling=0, exif=exif(orientation))
        made[f"jpeg orientation {orientation}"] = (data, Expected("JPEG"))
    return made


def deep_rgb(bits: int, channels: int = 3) -> np.ndarray:
    """The four quarters with values of so many bits, (h, w, channels) uint16."""
    values = np.asarray(quarters().convert("RGBA"), np.uint32)[..., :channels] * ((1 << bits) - 1) // 255
    return values.astype(np.uint16)


def deep_png(bits: int, channels: int) -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep_rgb(bits, channels))
    return png(WIDTH, HEIGHT, chunk(b"IDAT", zlib.compress(rows)), depth=16, colour=2 if channels == 3 else 6)


def deep_tiff(bits: int, order: str) -> bytes:
    pixels = deep_rgb(bits).astype(f"{order}u2").tobytes()
    entries = [(256, 3, 1, WIDTH), (257, 3, 1, HEIGHT), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 14)]
    entries += [(277, 3, 1, 3), (278, 3, 1, HEIGHT), (279, 4, 1, len(pixels))]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 14 + len(pixels))
    bits_each = struct.pack(f"{order}3H", 16, 16, 16)
    directory = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        packed = struct.pack(f"{order}H", value).ljust(4, b"\0") if kind == 3 and count == 1 else b""
        directory += struct.pack(f"{order}HHI", tag, kind, count) + (packed or struct.pack(f"{order}I", value))
    return head + bits_each + pixels + directory + bytes(4)


def camera_tiff(preview: bytes, orientation: int = 1) -> bytes:
    """What RAW files look like: a small picture first, the camera's name, and a large JPEG that no tag here names."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x010F], tags[0x0112] = "A maker", orientation
    small = encoded(Image.new("RGB", (16, 12)), "TIFF", tiffinfo=tags)
    return small + bytes(100) + encoded(Image.new("RGB", (32, 24)), "JPEG") + preview


def adobe(transform: int | None) -> bytes:
    """A CMYK JPEG with this transform in Adobe's marker (None: without the marker)."""
    image = quarters().convert("CMYK")
    data = encoded(image, "JPEG", quality=98, subsampling=0)
    start = data.index(b"\xff\xee")
    length = 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    if transform is None:
        return data[:start] + data[start + length :]
    if transform == 2:
        # YCCK: what is written is inverted once more.
        ycc = Image.merge("RGB", image.split()[:3]).convert("YCbCr").split()
        four = Image.merge("CMYK", (*map(ImageChops.invert, ycc), image.getchannel("K")))
        data = encoded(four, "JPEG", quality=98, subsampling=0)
    return data[: start + 15] + bytes([transform]) + data[start + 16 :]


def turned(form: str, box: int, orientation: int) -> bytes:
    """The four quarters in a HEIC or AVIF: turned so in its own boxes, and so in EXIF (values of EXIF, 1: not at all).

    The boxes decide, as the standard says (ISO 23000-22, 7.3.6.2) and browsers do.
    """
    image = quarters()
    if box != 1:
        image = image.transpose({3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[box])
    tags = Image.Exif()
    # Pillow writes no orientation into an AVIF's EXIF: another tag is renamed to it.
    tags[0x0112], tags[0x0113] = box, 9
    data = encoded(image, form, quality=95, exif=tags.tobytes(), chroma=444, subsampling="4:4:4")
    entry = (0x0112, 3, 1, box) if form == "HEIF" else (0x0113, 3, 1, 9)
    assert data.count(struct.pack(">HHIH", *entry)) == 1
    return data.replace(struct.pack(">HHIH", *entry), struct.pack(">HHIH", 0x0112, 3, 1, orientation))


def heic_of_many_auxiliary_images() -> bytes:
    """What a phone adds (depth, mattes, a gain map), without what each of them is."""
    data = encoded(quarters(), "HEIF", quality=95, chroma=444, thumbnails=list(range(16, 64)))
    assert data.count(b"thmb") == 48
    return data.replace(b"thmb", b"auxl")


def _of_cameras_and_scanners() -> dict[str, tuple[bytes, Expected]]:
    image = quarters()
    jpeg = encoded(image, "JPEG", quality=95, subsampling=0)
    grey12 = Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 16)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    made = {
        "jpeg without its last marker": (jpeg[:-2], Expected("JPEG")),
        "jpeg without its last part": (jpeg[: -len(jpeg) // 50], Expected("JPEG")),
        "jpeg with a video behind it": (jpeg + b"\xff\xda\x00\x10" * 200, Expected("JPEG")),
        "jpeg cmyk without a marker": (adobe(None), Expected("JPEG")),
        "jpeg cmyk transform 0": (adobe(0), Expected("JPEG")),
        "jpeg ycck": (adobe(2), Expected("JPEG", tolerance=20)),
        "png whose xmp alone turns it": (
            encoded(image, "PNG", pnginfo=_text("XML:com.adobe.xmp", xmp)),
            Expected("PNG"),
        ),
        "png opaque alpha": (encoded(image.convert("RGBA"), "PNG"), Expected("PNG")),
        "jpeg 2000": (encoded(image, "JPEG2000"), Expected("JPEG2000")),
        "jpeg 2000 codestream": (encoded(image, "JPEG2000", no_jp2=True), Expected("JPEG2000")),
        "png grey 12 bit in 16": (encoded(grey12, "PNG"), Expected("PNG", corners=greys())),
        "tiff grey 12 bit in 16": (encoded(grey12, "TIFF"), Expected("TIFF", corners=greys())),
        "tiff float to 1.0": (
            encoded(Image.fromarray(np.asarray(image.convert("L"), np.float32) / 255), "TIFF"),
            Expected("TIFF", corners=greys()),
        ),
        "raw of a tiff": (camera_tiff(jpeg), Expected("RAW")),
        "raw turned": (
            camera_tiff(encoded(image.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, subsampling=0), 6),
            Expected("RAW"),
        ),
        "raw of olympus": (b"IIRO" + camera_tiff(jpeg)[4:], Expected("RAW")),
        "raw of fujifilm": (b"FUJIFILMCCD-RAW 0201" + bytes(80) + jpeg, Expected("RAW")),
        "raw of canon": (b"\0\0\0\x18ftypcrx " + bytes(90) + b"CMT1" + camera_tiff(jpeg), Expected("RAW")),
        "avif with another first brand": (
            encoded(image, "AVIF", quality=95, subsampling="4:4:4").replace(b"ftypavif", b"ftypmif1", 1),
            Expected("AVIF"),
        ),
    }
    for bits in (10, 12, 14, 16):
        made[f"png rgb {bits} bit in 16"] = deep_png(bits, 3), Expected("PNG")
        made[f"png rgba {bits} bit in 16"] = deep_png(bits, 4), Expected("PNG")
        made[f"tiff rgb {bits} bit in 16"] = deep_tiff(bits, "<"), Expected("TIFF")
    for form in ("HEIF", "AVIF"):
        for box, orientation in ((3, 3), (6, 6), (3, 1), (6, 3), (3, 6), (1, 6)):
            how = f"{form} turned by {box} in its boxes, {orientation} in exif"
            made[how] = turned(form, box, orientation), Expected(form)
    made["heic of several images"] = (
        frames(image, Image.new("RGB", (9, 9)), form="HEIF", quality=95, chroma=444),
        Expected("HEIF"),
    )
    made["avif of one frame as a sequence"] = frames(image, form="AVIF", quality=95, append=True), Expected("AVIF")
    made["tiff rgb 12 bit in 16, big-endian"] = deep_tiff(12, ">"), Expected("TIFF")
    return made


def _text(key: str, value: bytes) -> PngInfo:
    info = PngInfo()
    info.add_itxt(key, value.decode())
    return info


def lab(image: Image.Image) -> Image.Image:
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    return to_lab.apply(image)


def _text_bomb() -> bytes:
    return png_with(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(60_000_000))))


def _png_of_long_text() -> bytes:
    return png_with(chunk(b"zTXt", b"Raw profile type 8bim\0\0" + zlib.compress(bytes(3_000_000))))


def _jpeg_of_many_scans() -> bytes:
    data = encoded(photo(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 500 + b"\xff\xd9"


def _gif_without_frames() -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", WIDTH, HEIGHT, 0, 0, 0) + b";"


def _tiff(entries: list[tuple[int, int, int, int]], next_directory: int = 0) -> bytes:
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", next_directory)


def _tiff_of_many_strips(count: int) -> bytes:
    tags = {256: 1, 257: count, 258: 8, 259: 1, 262: 1, 277: 1, 278: 1}
    entries = [(tag, 4, 1, value) for tag, value in tags.items()]
    start = 8 + 2 + 12 * 9 + 4
    head = _tiff(sorted([*entries, (273, 4, count, start), (279, 4, count, start + 4 * count)]))
    return head + struct.pack("<I", 8) * count + struct.pack("<I", 1) * count


def _behind_a_thumbnail(tiff: bytes) -> bytes:
    """The same page, as the second of two."""
    tags = {254: 1, 256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 1}
    first = _tiff([(tag, 4, 1, value) for tag, value in tags.items()], next_directory=8)[8:]
    return tiff[:4] + struct.pack("<I", len(tiff)) + tiff[8:] + first


def jpeg_2000(side: int, tile: int, *, block: int = 4, precinct: int | None = None, layers: int = 1) -> bytes:
    """Headers of a file in three channels; `block` and `precinct` are exponents of sides, that of blocks less 2."""
    sizes = b"" if precinct is None else bytes([17 * precinct]) * 6
    image = struct.pack(">HH8IH", 47, 0, side, side, 0, 0, tile, tile, 0, 0, 3) + b"\x07\x01\x01" * 3
    style = struct.pack(">HBBHB5B", 12 + len(sizes), bool(sizes), 0, layers, 0, 5, block, block, 0, 1) + sizes
    tables = b"\xff\x5c\0\x13\x40" + bytes([0x40, 0x48, 0x48, 0x50] * 4)
    part = b"\xff\x90\0\x0a\0\0\0\0\0\0\0\1\xff\x93" + bytes(1000)
    return b"\xff\x4f\xff\x51" + image + b"\xff\x52" + style + tables + part


def _bad() -> dict[str, tuple[bytes, str]]:
    jpeg, still = encoded(photo(), "JPEG"), encoded(photo(), "PNG")
    wrong_sum = bytearray(still)
    wrong_sum[still.index(b"IDAT") + 40] ^= 0xFF
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>"
    made: dict[str, tuple[bytes, str]] = {
        "nothing": (b"", "empty"),
        "one byte": (b"\xff", "not an image"),
        "zeros": (bytes(5000), "not an image"),
        "noise": (np.random.default_rng(3).bytes(5000), "not an image"),
        "html named jpg": (b"<!DOCTYPE html><html><body>Not found</body></html>", "HTML page"),
        "html after comments": (b"<!-- a --> <!-- b --><html>", "HTML page"),
        "comments without end": (b"<!---->" * 200 + b"<!--", "not an image"),
        "json": (b'{"error": "no such picture"}', "JSON document"),
        "pdf": (b"%PDF-1.7\n1 0 obj", "PDF document"),
        "zip": (b"PK\x03\x04" + bytes(100), "ZIP archive"),
        "mp4": (b"\0\0\0\x20ftypisom" + bytes(100), "video"),
        "ico": (encoded(photo(), "ICO"), "ICO"),
        "photoshop": (b"8BPS" + bytes(100), "Photoshop"),
        "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        "ppm": (encoded(photo(), "PPM"), "not an image"),
        "tga": (encoded(photo(), "TGA"), "not an image"),
        "svg": (svg, "SVG"),
        "svg in xml": (b"<?xml version='1.0'?>\n<!-- x -->\n" + svg, "SVG"),
        "svg with doctype": (b"<!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1//EN' 'x.dtd'>" + svg, "SVG"),
        "svg of entities": (b"<?xml version='1.0'?><!DOCTYPE svg [<!ENTITY a 'aa'>]>" + svg, "SVG"),
        "jpeg of its first lines": (jpeg[: jpeg.index(b"\xff\xda") + 300], "ends before"),
        "raw without a preview": (b"IIRO" + bytes(500), "no preview"),
        "jpeg 2000 cut in half": (encoded(photo(), "JPEG2000")[:500], "JPEG2000"),
        "jpeg 2000 of 65,025 tiles": (jpeg_2000(1020, 4), "1,020 x 1,020 pixels takes too much memory"),
        "jpeg 2000 of tiny blocks": (jpeg_2000(3000, 3000, block=0), "too much memory"),
        "jpeg 2000 of tiny precincts": (jpeg_2000(1000, 1000, precinct=1), "too much memory"),
        "jpeg 2000 of very many packets": (jpeg_2000(1000, 1000, precinct=5, layers=65535), "too much memory"),
        "jpeg 2000 of no such blocks": (jpeg_2000(900, 900), "broken"),
        "jpeg xl of a header only": (b"\xff\x0a" + bytes(30), "JXL"),
        "jpeg of a header only": (jpeg[:20], "JPEG"),
        "jpeg of a marker only": (b"\xff\xd8\xff", "JPEG"),
        "jpeg of 500 scans": (_jpeg_of_many_scans(), "scans"),
        "raw with a preview of 500 scans": (b"FUJIFILMCCD-RAW 0201" + bytes(80) + _jpeg_of_many_scans(), "scans"),
        "tiff of very many strips": (_tiff_of_many_strips(200_001), "200,001 pieces"),
        "tiff of very many strips behind a thumbnail": (
            _behind_a_thumbnail(_tiff_of_many_strips(200_001)),
            "200,001 pieces",
        ),
        "png cut in half": (still[: len(still) // 2], "PNG"),
        "png of a signature only": (still[:8], "PNG"),
        "png with a wrong checksum": (bytes(wrong_sum), "PNG"),
        "png of 50,000 x 50,000": (png(50_000, 50_000, pixels), "pixels"),
        "png of 9,000 x 9,000": (png(9_000, 9_000, pixels), "9,000 x 9,000 pixels"),
        "png of 12,000 x 12,000": (png(12_000, 12_000, pixels), "12,000 x 12,000 pixels"),
        "png of 0 x 0": (png(0, 0, pixels), "PNG"),
        "png of 0 x 5": (png(0, 5, pixels), "PNG"),
        "png of 2147483647 x 1": (png(2**31 - 1, 1, pixels), "pixels"),
        "png without pixels": (png(WIDTH, HEIGHT), "PNG"),
        "png of an unknown colour type": (png(WIDTH, HEIGHT, pixels, colour=5), "PNG"),
        "png with a text bomb": (_text_bomb(), "PNG"),
        "webp cut in half": (encoded(photo(), "WEBP")[:200], "WEBP"),
        "webp of a header only": (b"RIFF\x10\0\0\0WEBPVP8 ", "WEBP"),
        "gif without frames": (_gif_without_frames(), "GIF"),
        "gif cut in half": (encoded(photo(), "GIF")[:700], "GIF"),
        "gif of 65,535 x 65,535": (b"GIF89a" + b"\xff" * 4 + bytes(3) + b",", "GIF"),
        "bmp cut in half": (encoded(photo(), "BMP")[:2000], "BMP"),
        "bmp of negative size": (
            b"BM" + struct.pack("<IIIIiiHHIIIIII", 99, 0, 54, 40, -9, -9, 1, 24, *[0] * 6),
            "pixels",
        ),
        "tiff without a directory": (b"II*\0\xff\xff\xff\x7f", "TIFF"),
        "tiff of an endless directory": (_tiff([(256, 3, 1, 9), (257, 3, 1, 9)], next_directory=8), "TIFF"),
        "tiff of 10^9 pixels": (_tiff([(256, 4, 1, 10**9), (257, 4, 1, 1), (258, 3, 1, 8), (262, 3, 1, 1)]), "TIFF"),
        "tiff cut in half": (encoded(photo(), "TIFF")[:3000], "TIFF"),
        "avif cut in half": (encoded(photo(), "AVIF")[:300], "AVIF"),
        "avif of a header only": (b"\0\0\0\x1cftypavif" + bytes(16), "AVIF"),
        "heic cut in half": (encoded(photo(), "HEIF")[:500], "HEIF"),
        "heic of many auxiliary images": (heic_of_many_auxiliary_images(), "auxiliary image unspecified"),
        "heic of a header only": (b"\0\0\0\x18ftypheic" + bytes(12), "HEIF"),
    }
    return made


GOOD = _good()
BAD = _bad()
SEEDS: dict[str, Callable[[], bytes]] = {
    form: lambda form=form: encoded(photo(), form)  # type: ignore[misc]
    for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
}
"""One small valid file a format, to be damaged."""
SEEDS["JPEG progressive"] = lambda: encoded(photo(), "JPEG", progressive=True, exif=exif(6))
SEEDS["PNG palette"] = palette_with_alpha
SEEDS["PNG profile"] = swapped_profile
SEEDS["TIFF lzw"] = lambda: encoded(photo(), "TIFF", compression="tiff_lzw")
SEEDS["GIF animated"] = lambda: frames(quarters(), photo(), form="GIF", duration=50)
SEEDS["WEBP animated"] = lambda: frames(quarters(), photo(), form="WEBP", duration=50)
SEEDS["PNG animated"] = lambda: frames(quarters(), photo(), form="PNG", duration=50)
