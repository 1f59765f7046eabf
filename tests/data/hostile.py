"""Odd, damaged and hostile image files, made in code, each with what has to become of it."""

import gzip
import io
import os
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import tifffile
from numpy.typing import NDArray
from PIL import Image

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8)
RGBA = RNG.integers(0, 256, (9, 12, 4), dtype=np.uint8)
GREY = RGB[:, :, :1]
FIVE = RNG.integers(0, 256, (9, 12, 5), dtype=np.uint8)
WIDE = RNG.integers(0, 65536, (9, 12, 3), dtype=np.uint16)
FLAT = np.full((9, 12, 3), (200, 60, 30), dtype=np.uint8)
MARKED = np.full((16, 32, 3), 40, dtype=np.uint8)  # light in one corner, which survives JPEG
MARKED[:8, :16] = 220
TRUNCATED = "damaged: image file is truncated"
UNKNOWN = "which does not say what is black and what is white: set data.pixel_range"


@dataclass(frozen=True)
class Case:
    """A file and its documented outcome.

    Attributes:
        name: Of the file.
        make: Writes it.
        pixels: What is read, ``(height, width, channels)``; `None` where it is broken.
        reason: What the reason of a broken one begins with.
        channels: How many the model takes.
        pixel_range: As for `Preprocess`.
        off: By how much the pixels may differ, where the format loses something.
    """

    name: str
    make: Callable[[Path], Any]
    pixels: NDArray[np.uint8] | None = None
    reason: str | None = None
    channels: int = 3
    pixel_range: tuple[float, float] | None = None
    off: int = 0


def scaled(values: NDArray[Any], high: float = 65535, low: float = 0) -> NDArray[np.uint8]:
    return ((values.astype(float) - low) / (high - low) * 255).round().clip(0, 255).astype(np.uint8)


def on_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    opacity = pixels[:, :, -1:] / 255
    return (pixels[:, :, :-1] * opacity + 255 * (1 - opacity)).round().astype(np.uint8)


def encoded(picture: Any, kind: str, **options: Any) -> bytes:
    """The bytes of a file that PIL writes."""
    file = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(np.asarray(picture).squeeze())
    image.save(file, kind, **options)
    return file.getvalue()


def tiff(values: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def oriented(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values: NDArray[Any], bits: int, color: int, extra: bytes = b"", size: tuple[int, int] | None = None) -> bytes:
    """A PNG of kinds that PIL does not write; fewer than 8 bits have to be packed already."""
    width, height = size or (values.shape[1], values.shape[0])
    lines = b"".join(b"\0" + line.astype(">u2" if bits == 16 else "u1").tobytes() for line in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def changed(content: bytes, at: int, to: bytes) -> bytes:
    at %= len(content)
    return content[:at] + to + content[at + len(to) :]


def palette(**options: Any) -> bytes:
    image = Image.fromarray((GREY.squeeze() % 2).astype(np.uint8), mode=None).convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    return encoded(image, "PNG", **options)


def writes(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket has to be short
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path.name)
    finally:
        os.chdir(here)


def _link_to(target: str) -> Callable[[Path], Any]:
    return lambda path: path.symlink_to(target)


def _good(name: str, content: bytes, pixels: NDArray[np.uint8], **settings: Any) -> Case:
    return Case(name, writes(content), pixels=pixels, **settings)


def _bad(name: str, content: bytes, reason: str, **settings: Any) -> Case:
    return Case(name, writes(content), reason=reason, **settings)


def jpegs() -> Iterator[Case]:
    flat, marked = encoded(FLAT, "JPEG", quality=95), encoded(MARKED, "JPEG", quality=95)
    yield _good("rgb.jpg", flat, FLAT, off=3)
    yield _good("grey.jpg", encoded(FLAT[:, :, 0], "JPEG"), FLAT[:, :, :1], off=2)
    yield _good("progressive.jpg", encoded(MARKED, "JPEG", quality=95, progressive=True), MARKED, off=12)
    yield _good("cmyk.jpg", encoded(Image.fromarray(FLAT).convert("CMYK"), "JPEG", quality=98), FLAT, off=6)
    turned = {1: MARKED, 2: MARKED[:, ::-1], 3: MARKED[::-1, ::-1], 4: MARKED[::-1], 5: MARKED.swapaxes(0, 1)}
    turned |= {6: np.rot90(MARKED, -1), 7: np.rot90(MARKED, 2).swapaxes(0, 1), 8: np.rot90(MARKED)}
    for number, pixels in turned.items():
        content = encoded(MARKED, "JPEG", quality=95, exif=oriented(number))
        yield _good(f"exif {number}.jpg", content, pixels, off=12)
    content = encoded(MARKED, "JPEG", quality=95, exif=oriented(6))
    damaged = content.replace(b"Exif\0\0MM", b"Exif\0\0XX").replace(b"Exif\0\0II", b"Exif\0\0XX")
    yield _good("damaged exif.jpg", damaged, MARKED, off=12)
    yield _good("orientation 99.jpg", encoded(MARKED, "JPEG", quality=95, exif=oriented(99)), MARKED, off=12)
    yield _good("rubbish behind.jpg", flat + b"\0rubbish" * 1000, FLAT, off=3)
    second = Image.fromarray(MARKED)
    content = encoded(FLAT, "MPO", save_all=True, append_images=[second], quality=95)
    yield _good("two images.jpg", content, FLAT, off=3)
    yield _bad("half.jpg", encoded(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8), "JPEG")[:3000], TRUNCATED)
    yield _bad("header only.jpg", marked[:200], "damaged: Truncated File Read")
    yield _bad("two bytes.jpg", b"\xff\xd8", "not an image")
    yield _bad("no sides.jpg", flat.replace(struct.pack(">HH", 9, 12), bytes(4)), "not an image")


def pngs() -> Iterator[Case]:
    whole = encoded(RGB, "PNG")
    yield _good("rgb.png", whole, RGB)
    yield _good("grey.png", encoded(GREY, "PNG"), GREY)
    yield _good("one bit.png", encoded(Image.fromarray(GREY.squeeze() > 127), "PNG"), (GREY > 127) * np.uint8(255))
    packed = np.array([[0x1B]], dtype=np.uint8)  # 0 1 2 3
    yield _good("two bits.png", png(packed, 2, 0, size=(4, 1)), np.array([[[0], [85], [170], [255]]], dtype=np.uint8))
    packed = np.array([[0x0F, 0x80]], dtype=np.uint8)
    yield _good("four bits.png", png(packed, 4, 0, size=(3, 1)), np.array([[[0], [255], [136]]], dtype=np.uint8))
    colours = np.array([[10, 20, 30], [200, 100, 50]], dtype=np.uint8)
    where = GREY.squeeze() % 2
    yield _good("palette.png", palette(), colours[where])
    white = np.where((where == 0)[:, :, None], 255, colours[where]).astype(np.uint8)
    yield _good("palette, one colour clear.png", palette(transparency=0), white)
    yield _good("palette, opacities.png", palette(transparency=b"\x00\xff"), white)
    yield _good("rgba.png", encoded(RGBA, "PNG"), on_white(RGBA))
    yield _good("rgba kept.png", encoded(RGBA, "PNG"), RGBA, channels=4)
    yield _bad("rgb for four.png", whole, "it has 3 channels where 4 are expected: see data.channels", channels=4)
    yield _good("rgb for one.png", whole, RGB, channels=1)
    yield _good("grey for five.png", encoded(GREY, "PNG"), GREY, channels=5)
    grey_clear = RGBA[:, :, :2]
    yield _good("grey and opacity.png", png(grey_clear, 8, 4), on_white(grey_clear))
    yield _good("grey and opacity kept.png", png(grey_clear, 8, 4), grey_clear, channels=2)
    key = chunk(b"tRNS", struct.pack(">HHH", *RGB[2, 3].tolist()))
    clear = (RGB == RGB[2, 3]).all(axis=2, keepdims=True)
    yield _good("a clear colour.png", png(RGB, 8, 2, key), np.where(clear, 255, RGB).astype(np.uint8))
    yield _good("16 bits.png", png(WIDE[:, :, :1], 16, 0), scaled(WIDE[:, :, :1]))
    yield _good("16 bits of rgb.png", png(WIDE, 16, 2), scaled(WIDE))
    twelve = WIDE // 16
    yield _good("12 bits.png", png(twelve[:, :, :1], 16, 0), scaled(twelve[:, :, :1], 4095), pixel_range=(0, 4095))
    yield _good("12 bits of rgb.png", png(twelve, 16, 2), scaled(twelve, 4095), pixel_range=(0, 4095))
    yield _good("clipped.png", encoded(GREY, "PNG"), scaled(GREY, 150, 50), pixel_range=(50, 150))
    wide = np.concatenate([WIDE, WIDE[::-1, :, :1]], axis=2)
    yield _good("16 bits of rgba.png", png(wide, 16, 6), on_white(scaled(wide)), off=1)
    yield _good("16 bits of rgba kept.png", png(wide, 16, 6), scaled(wide), channels=4)
    yield _good("16 bits of grey and opacity.png", png(wide[:, :, 2:], 16, 4), on_white(scaled(wide[:, :, 2:])), off=1)
    yield _good("16 bits of grey and opacity kept.png", png(wide[:, :, 2:], 16, 4), scaled(wide[:, :, 2:]), channels=2)
    for name, values, color in (("a clear colour of 16 bits.png", WIDE, 2), ("a clear grey.png", WIDE[:, :, :1], 0)):
        key = chunk(b"tRNS", values[4, 5].astype(">u2").tobytes())
        clear = (values == values[4, 5]).all(axis=2, keepdims=True)
        yield _good(name, png(values, 16, color, key), np.where(clear, 255, scaled(values)).astype(np.uint8))
    yield _good("turned.png", encoded(RGB, "PNG", exif=oriented(6)), np.rot90(RGB, -1))
    yield _good("moving.png", encoded(RGB, "PNG", save_all=True, append_images=[Image.fromarray(FLAT)]), RGB)
    yield _good("one pixel.png", png(RGB[:1, :1], 8, 2), RGB[:1, :1])
    long = np.tile(GREY[:1, :1], (3000, 1, 1))
    yield _good("elongated.png", png(long, 8, 0), long)
    yield _bad("half.png", whole[: len(whole) // 2], TRUNCATED)
    yield _bad("header only.png", whole[:33], "not an image")
    yield _bad("wrong checksum of the header.png", changed(whole, 29, b"\0\0\0\0"), "not an image")
    yield _bad("wrong checksum of the pixels.png", changed(whole, -18, b"\0\0"), "damaged: ")
    yield _bad("no width.png", png(RGB, 8, 2, size=(0, 9)), "not an image")
    yield _bad("too many pixels.png", png(RGB, 8, 2, size=(60000, 60000)), "too many pixels to be safe")
    # What PIL makes of a file that is whole, but holds fewer lines than its header says.
    missing = np.concatenate([RGB, np.zeros_like(RGB)])
    yield _good("fewer lines than it says.png", png(RGB, 8, 2, size=(12, 18)), missing)
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**27)))
    yield _bad("text that explodes.png", png(RGB, 8, 2, text), "damaged: Decompressed data too large")


def tiffs() -> Iterator[Case]:
    grey16 = WIDE[:, :, 0]
    plain = tiff(RGB, photometric="rgb")
    yield _good("rgb.tif", plain, RGB)
    yield _good("big-endian.tif", tiff(RGB, photometric="rgb", byteorder=">"), RGB)
    yield _good("bigtiff.tiff", tiff(RGB, photometric="rgb", bigtiff=True), RGB)
    yield _good("lzw.tif", encoded(RGB, "TIFF", compression="tiff_lzw"), RGB)
    light = GREY > 127
    fax = encoded(Image.fromarray(light.squeeze()), "TIFF", compression="group4")
    yield _good("fax.tif", fax, light * np.uint8(255))
    yield _good("cmyk.tif", encoded(Image.fromarray(FLAT).convert("CMYK"), "TIFF"), FLAT, off=1)
    yield _good("palette.tif", encoded(Image.fromarray(FLAT).quantize(4), "TIFF"), FLAT, off=1)
    yield _good("rgba.tif", tiff(RGBA, photometric="rgb", extrasamples=["unassalpha"]), on_white(RGBA))
    yield _good("rgba kept.tif", tiff(RGBA, photometric="rgb", extrasamples=["unassalpha"]), RGBA, channels=4)
    unknown = tiff(RGBA, photometric="rgb", extrasamples=["unspecified"])
    yield _good("rgb and infrared.tif", unknown, RGBA, channels=4)
    yield _bad("rgb and infrared for three.tif", unknown, "it has 4 channels where 3 are expected")
    yield _good("negative.tif", tiff(GREY.squeeze(), photometric="miniswhite"), 255 - GREY)
    yield _good("negative of 16 bits.tif", tiff(grey16, photometric="miniswhite"), scaled(65535 - WIDE[:, :, :1]))
    yield _good("16 bits.tif", tiff(grey16), scaled(WIDE[:, :, :1]))
    yield _good("16 bits of rgb.tif", tiff(WIDE, photometric="rgb"), scaled(WIDE))
    yield _good("16 bits, lzw.tif", tiff(WIDE, photometric="rgb", compression="lzw"), scaled(WIDE))
    planes = np.moveaxis(WIDE, 2, 0)
    yield _good("16 bits in planes.tif", tiff(planes, photometric="rgb", planarconfig="separate"), scaled(WIDE))
    tiled = np.tile(WIDE, (4, 4, 1))
    yield _good("tiles.tif", tiff(tiled, photometric="rgb", tile=(16, 16)), scaled(tiled))
    yield _good("12 bits.tif", tiff(WIDE // 16, photometric="rgb"), scaled(WIDE // 16, 4095), pixel_range=(0, 4095))
    for name, values in (("turned, pil.tif", RGB), ("turned, tifffile.tif", WIDE)):
        content = tiff(values, photometric="rgb", extratags=[(274, 3, 1, 6, True)])
        yield _good(name, content, np.rot90(RGB if values is RGB else scaled(WIDE), -1))
    contiguous = {"photometric": "minisblack", "planarconfig": "contig"}
    five = tiff(FIVE, **contiguous)
    yield _good("five channels.tif", five, FIVE, channels=5)
    planes = tiff(np.moveaxis(FIVE, 2, 0), photometric="minisblack", planarconfig="separate")
    yield _good("five channels in planes.tif", planes, FIVE, channels=5)
    yield _good("five channels, deflate.tif", tiff(FIVE, **contiguous, compression="zlib"), FIVE, channels=5)
    yield _bad("five channels for three.tif", five, "it has 5 channels where 3 are expected: see data.channels")
    pages = tiff(np.moveaxis(FIVE, 2, 0), photometric="minisblack")
    yield _good("five pages.tif", pages, FIVE[:, :, :1])
    reduced = tiff(np.stack([GREY.squeeze(), GREY.squeeze() // 2]), photometric="minisblack", subfiletype=1)
    yield _good("all are reduced.tif", reduced, GREY)
    yield _bad("five pages for five.tif", pages, "5 pages of one channel: all channels have to be in", channels=5)
    grey = GREY.squeeze() / np.float32(255)
    yield _good("float.tif", tiff(grey), GREY)
    yield _good("float of rgb.tif", tiff(RGB / np.float32(255), photometric="rgb"), RGB)
    yield _good("double.tif", tiff(grey.astype(np.float64)), GREY)
    yield _good("half precision.tif", tiff(grey.astype(np.float16)), GREY, off=1)
    yield _bad("float beyond 1.tif", tiff(grey * 1000), f"its float32 pixels go from {GREY.min() / 0.255:g}")
    yield _good("kelvin.tif", tiff(grey * 50 + 250), GREY, pixel_range=(250, 300))
    for name, odd in (("nan.tif", np.nan), ("inf.tif", np.inf)):
        values = grey.copy()
        values[3, 3] = odd
        yield _bad(name, tiff(values), "some of its pixels are NaN or infinite")
    signed = WIDE[:, :, 0].astype(np.int32) - 32768
    reason = f"its int32 pixels go from {signed.min()} to {signed.max()}, {UNKNOWN}"
    yield _bad("signed.tif", tiff(signed.astype(np.int16)), reason)
    levels = scaled(signed[:, :, None], 32767, -32768)
    yield _good("signed with a range.tif", tiff(signed.astype(np.int16)), levels, pixel_range=(-32768, 32767))
    yield _good("32 bits that fit.tif", tiff(grey16.astype(np.uint32)), scaled(WIDE[:, :, :1]))
    yield _bad("32 bits.tif", tiff(grey16.astype(np.uint32) * 1000), "its uint32 pixels go from ")
    yield _bad("signed bytes.tif", tiff((GREY.squeeze() // 2).astype(np.int8)), "its int8 pixels go from ")
    yield _bad("complex.tif", tiff(grey.astype(np.complex64)), "its pixels are complex64 numbers")
    volume = tiff(np.zeros((16, 16, 16)), volumetric=True, tile=(16, 16, 16), photometric="minisblack")
    yield _bad("volume.tif", volume, "its first page has the axes ZYX")
    large = tiff(np.tile(WIDE, (9, 9, 1)), photometric="rgb")
    yield _bad("half of 16 bits.tif", large[: len(large) // 2], TRUNCATED)
    deflated = tiff(np.tile(WIDE, (9, 9, 1)), photometric="rgb", compression="zlib")
    yield _bad("wrong deflate.tif", changed(deflated, len(deflated) // 2, bytes(50)), "damaged: ")
    compressed = encoded(RGB, "TIFF", compression="tiff_lzw")
    yield _bad("wrong lzw.tif", changed(compressed, 40, bytes(range(60))), "damaged: ")
    yield _bad("header only.tif", plain[:8], "damaged: no image in it")
    yield _bad("directory beyond the end.tif", changed(plain, 4, struct.pack("<I", 10**9)), "damaged: no image in it")
    content = tiff(WIDE, photometric="rgb", metadata=None)
    entries = struct.unpack_from("<H", content, 8)[0]
    yield _good("directories in a circle.tif", changed(content, 10 + 12 * entries, struct.pack("<I", 8)), scaled(WIDE))
    wide = content.replace(struct.pack("<HHII", 256, 4, 1, 12), struct.pack("<HHII", 256, 4, 1, 2**30))
    yield _bad("too many pixels.tif", wide, "too many pixels to be safe")


def others() -> Iterator[Case]:
    yield _good("lossless.webp", encoded(RGB, "WEBP", lossless=True), RGB)
    yield _good("lossy.webp", encoded(FLAT, "WEBP", quality=95), FLAT, off=6)
    opaque = RGBA | np.array([0, 0, 0, 128], dtype=np.uint8)
    yield _good("rgba.webp", encoded(opaque, "WEBP", lossless=True), on_white(opaque), off=1)
    moving = {"save_all": True, "append_images": [Image.fromarray(FLAT)]}
    yield _good("moving.webp", encoded(RGB, "WEBP", lossless=True, **moving), RGB)
    yield _bad("half.webp", encoded(RGB, "WEBP", lossless=True)[:150], "damaged: could not create decoder object")
    yield _good("rgb.bmp", encoded(RGB, "BMP"), RGB)
    yield _good("grey.bmp", encoded(GREY, "BMP"), GREY)
    yield _bad("half.bmp", encoded(RGB, "BMP")[:200], TRUNCATED)
    yield _good("grey.gif", encoded(GREY, "GIF"), np.repeat(GREY, 3, axis=2))
    first = Image.fromarray(FLAT).quantize(4)
    yield _good("moving.gif", encoded(first, "GIF", save_all=True, append_images=[Image.fromarray(RGB)]), FLAT)
    clear = encoded(Image.new("P", (4, 3), 0), "GIF", transparency=0)
    yield _good("clear.gif", clear, np.full((3, 4, 3), 255, np.uint8))
    yield _bad("half.gif", encoded(GREY, "GIF")[:-60], TRUNCATED)
    yield _good("rgb.ppm", encoded(RGB, "PPM"), RGB)
    yield _good("16 bits.pgm", encoded(WIDE[:, :, 0], "PPM"), scaled(WIDE[:, :, :1]))
    yield _bad("half.ppm", encoded(RGB, "PPM")[:100], TRUNCATED)
    yield _good("jpeg 2000.png", encoded(RGB, "JPEG2000", irreversible=False), RGB)
    # By content, not by name.
    for kind, name in (("PNG", "a png.jpg"), ("BMP", "a bmp.png"), ("TIFF", "a tiff.jpg"), ("PPM", "a ppm.gif")):
        yield _good(name, encoded(RGB, kind), RGB)
    yield _good("16 bits, a tiff.png", tiff(WIDE, photometric="rgb"), scaled(WIDE))
    yield _bad("empty.jpg", b"", "empty file")
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    texts = {"text.jpg": b"hello", "page.jpg": b"<!DOCTYPE html><html></html>", "zip.png": b"PK\3\4" + bytes(60)}
    texts |= {"postscript.jpg": postscript, "zero.jpg": b"\0", "zeros.png": bytes(10_000), "svg.png": b"<svg/>"}
    texts |= {"x bitmap.png": b"#define a_width 8\n#define a_height 1\nstatic char a_bits[] = {0x01};\n"}
    texts |= {"rubbish.jpg": np.random.default_rng(1).bytes(5000), "pointer.png": b"version https://git-lfs.github.com"}
    for name, content in texts.items():
        yield _bad(name, content, "not an image")


def telephones() -> Iterator[Case]:
    """HEIC, as telephones write it, and AVIF."""
    pillow_heif.register_heif_opener()
    heic = {"quality": -1, "chroma": 444}
    avif = {"quality": 100, "subsampling": "4:4:4"}
    for kind, options in (("HEIF", heic), ("AVIF", avif)):
        end = {"HEIF": "heic", "AVIF": "avif"}[kind]
        whole = encoded(MARKED, kind, **options)
        yield _good(f"rgb.{end}", whole, MARKED, off=1)
        turned = encoded(MARKED, kind, **options, exif=oriented(6).tobytes())
        yield _good(f"turned.{end}", turned, np.rot90(MARKED, -1), off=1)
        several = {"save_all": True, "append_images": [Image.fromarray(255 - MARKED)]}
        yield _good(f"several.{end}", encoded(MARKED, kind, **options, **several), MARKED, off=1)
        yield _good(f"a {end}.jpg", whole, MARKED, off=1)
        yield _bad(f"half.{end}", whole[: len(whole) // 2], "not an image")
        yield _bad(f"header only.{end}", whole[:40], "not an image")


def medical() -> Iterator[Case]:
    """DICOM and NIfTI that are damaged, or what their names do not say; whole ones have tests of their own."""
    yield _bad("text.dcm", b"hello", "a DICOM file without an image")
    yield _bad("zeros.dcm", bytes(10_000), "a DICOM file without an image")
    yield _bad("mark only.dcm", bytes(128) + b"DICM", "a DICOM file without an image")
    yield _good("a png.dcm.png", encoded(RGB, "PNG"), RGB)
    yield _bad("text.nii", b"hello", "not an image")
    yield _bad("text.nii.gz", gzip.compress(b"hello"), "damaged: ")
    yield _bad("gzip mark only.nii.gz", b"\x1f\x8b", "damaged: ")
    head = bytearray(352)
    head[:4], head[344:348] = struct.pack("<i", 348), b"n+1\0"
    yield _bad("empty header.nii", bytes(head), "damaged: ")


def strange_files() -> Iterator[Case]:
    """What is no plain file, or has a name that is hard to write."""
    yield Case("folder.jpg", lambda path: path.mkdir(), reason="a folder")
    yield Case("pipe.jpg", os.mkfifo, reason="not a regular file")
    yield Case("socket.jpg", _socket, reason="not a regular file")
    yield Case("leads nowhere.jpg", _link_to("nothing.jpg"), reason="no such file")
    yield Case("leads to itself.jpg", _link_to("leads to itself.jpg"), reason="a link that leads to itself")
    yield Case("leads to a folder.jpg", _link_to("."), reason="a folder")
    yield Case("leads into a file.jpg", _link_to("good.png/more.jpg"), reason="no such file")
    content = encoded(RGB, "PNG")
    for name in ("good.png", " spaces , and commas.png", "two\nlines.png", "-dash.png", "[red]'\"$(x)%s{0}.png"):
        yield _good(name, content, RGB)
    yield _good(os.fsdecode(b"latin \xe9\xff.png"), content, RGB)
    yield _good("ä数😀.png", content, RGB)
    yield _good("n" * 246 + ".png", content, RGB)
    yield Case("leads to an image.jpg", _link_to("good.png"), pixels=RGB)


def cases() -> list[Case]:
    """All of them, with names of their own."""
    return [*jpegs(), *pngs(), *tiffs(), *others(), *telephones(), *medical(), *strange_files()]


def write(folder: Path, some: list[Case]) -> list[Path]:
    """Makes the files; a reader of images has to cope with what this folder holds then."""
    folder.mkdir(parents=True)
    for case in some:
        case.make(folder / case.name)
    return [folder / case.name for case in some]
