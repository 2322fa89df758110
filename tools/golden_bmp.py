"""Makes tests/data/images/bmp.bin, bmp.txt, turned.bin and turned.txt, written as golden_jpeg.py says.

    python3 -m venv venv && venv/bin/pip install pillow==12.0.0 numpy
    venv/bin/python tools/golden_bmp.py tests/data/images

The first suite holds BMPs: every header, depth, mask, run and palette that Pillow reads. The second holds JPEGs, PNGs
and WebPs with an orientation, in every place and spelling.
"""

import io
import itertools
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL
from golden_images import chunk, levels, picture, png, saved
from golden_jpeg import segment, write_suite

random = np.random.default_rng(14)

# ------------------------------------------------------------------------------------------------- BMP

SHAPES = ((1, 1), (3, 2), (8, 3), (13, 7), (33, 5))
MASKS = (
    (0xFF0000, 0xFF00, 0xFF, 0x0), (0xFF000000, 0xFF0000, 0xFF00, 0x0), (0xFF000000, 0xFF00, 0xFF, 0x0),
    (0xFF000000, 0xFF0000, 0xFF00, 0xFF), (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
    (0xFF0000, 0xFF00, 0xFF, 0xFF000000), (0xFF000000, 0xFF00, 0xFF, 0xFF0000), (0, 0, 0, 0),
)  # fmt: skip


def bmp(width, height, bits, data, size=40, compression=0, masks=(), palette=b"", colours=0, gap=0, offset=None):
    """A file from finished rows; a negative height is from the top."""
    if size == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        fields = (size, width, height, 1, bits, compression, len(data), 2835, 2835, colours, 0)
        info = struct.pack("<IiiHHIIiiII", *fields)
        if size >= 52:
            info += struct.pack("<4I", *(tuple(masks) + (0, 0, 0, 0))[:4])
        info = info.ljust(size, b"\0")[:size]
        if size == 40 and masks:
            info += struct.pack("<3I", *masks[:3])
    place = 14 + len(info) + len(palette) + gap
    place = place if offset is None else offset
    return b"BM" + struct.pack("<IHHI", place + len(data), 0, 0, place) + info + palette + bytes(gap) + data


def rows(width, height, bits):
    """Random bytes, in the place of rows."""
    return random.integers(0, 256, (width * bits + 31) // 32 * 4 * height, dtype=np.uint8).tobytes()


def palette(entries, kind, entry=4):
    colours = random.integers(0, 256, (entries, 3), dtype=np.uint8)
    if kind == "grey":
        colours = np.repeat(np.arange(entries, dtype=np.uint8)[:, None], 3, axis=1)
    if kind == "black and white":
        colours = np.array([[0] * 3, [255] * 3], np.uint8)
    if kind == "white and black":
        colours = np.array([[255] * 3, [0] * 3], np.uint8)
    return b"".join(bytes(colour) + bytes(entry - 3) for colour in colours)


def runs(width, height, narrow):
    """Runs of all kinds that fill a picture; a run of pixels by themselves is even, if they are narrow."""
    out = b""
    for _ in range(height):
        left = width
        while left:
            kind = int(random.integers(0, 3))
            length = int(random.integers(1, left + 1))
            if kind == 0 and length >= 3 and not (narrow and length % 2):
                count = length // 2 if narrow else length
                bytes_of = random.integers(0, 256, count, dtype=np.uint8).tobytes()
                out += bytes([0, length]) + bytes_of + bytes(count % 2)
            else:
                out += bytes([length, int(random.integers(0, 256))])
            left -= length
        out += b"\0\0"
    return out + b"\0\1"


def bmps():
    for (width, height), bits, kind in itertools.product(SHAPES, (1, 4, 8), ("colours", "grey")):
        label = f"{bits}-{kind}-{width}x{height}"
        whole = palette(1 << bits, kind)
        data = rows(width, height, bits)
        yield f"palette-{label}", bmp(width, height, bits, data, palette=whole)
        yield f"top-down-{label}", bmp(width, -height, bits, data, palette=whole, gap=3)
        yield f"v5-{label}", bmp(width, height, bits, data, size=124, palette=whole, colours=1 << bits)
        yield f"os2-{label}", bmp(width, height, bits, data, size=12, palette=palette(1 << bits, kind, 3))
        yield f"os22-{label}", bmp(width, height, bits, data, size=64, palette=whole)
        yield f"no-place-{label}", bmp(width, height, bits, data, palette=whole, offset=0)
        yield f"place-of-palette-{label}", bmp(width, height, bits, data, palette=whole, offset=54)
    for kind in ("black and white", "white and black"):
        for bits in (1, 4, 8):
            shape = SHAPES[3]
            file = bmp(*shape, bits, rows(*shape, bits), palette=palette(2, kind), colours=2)
            yield f"{kind}-{bits}", file
    for (width, height), used in itertools.product(SHAPES[2:], (1, 2, 7, 16, 200, 256)):
        data = bytes(byte % used for byte in rows(width, height, 8))
        yield f"used-{used}-{width}x{height}", bmp(width, height, 8, data, palette=palette(used, ""), colours=used)
    for (width, height), size in itertools.product(SHAPES, (12, 40, 52, 56, 64, 108, 124)):
        for bits in (16, 24, 32):
            yield f"raw-{bits}-{size}-{width}x{height}", bmp(width, height, bits, rows(width, height, bits), size=size)
    for size, flip in itertools.product((40, 52, 56, 108, 124), (1, -1)):
        for bits, masks in ((16, (0xF800, 0x7E0, 0x1F)), (16, (0x7C00, 0x3E0, 0x1F)), (24, MASKS[0][:3])):
            file = bmp(13, 7 * flip, bits, rows(13, 7, bits), size=size, compression=3, masks=masks)
            yield f"masks-{bits}-{masks[0]:x}-{size}-{flip}", file
        for number, masks in enumerate(MASKS):
            if size < 56 and (masks[3] or number == 7 and size == 40):
                continue
            file = bmp(13, 7 * flip, 32, rows(13, 7, 32), size=size, compression=3, masks=masks)
            yield f"masks-32-{number}-{size}-{flip}", file
    # A1R5G5B5, whose alpha Pillow does not look at.
    halves = rows(9, 4, 16)
    masks = (0x7C00, 0x3E0, 0x1F, 0x8000)
    yield "a1r5g5b5", bmp(9, 4, 16, halves, size=56, compression=3, masks=masks)
    for (width, height), bits, kind in itertools.product(SHAPES, (4, 8), ("colours", "grey")):
        for number in range(3):
            data = runs(width, height, bits == 4)
            file = bmp(width, height, bits, data, compression=3 - bits // 4, palette=palette(1 << bits, kind))
            yield f"runs-{bits}-{kind}-{number}-{width}x{height}", file
    for name, data in (
        ("lines", b"\3\5\0\0\0\0" + b"\x0d\1\0\0" * 4 + b"\x0d\2"),
        ("long", b"\xff\7\0\0" * 7),
        ("jump", b"\2\5\0\2\0\0\3\1" + b"\x0d\1\0\0" * 6 + b"\x0d\2"),
        ("odd", b"\0\3\1\2\3\0" + b"\x0d\4" * 9 + b"\0\1"),
    ):
        yield f"runs-{name}", bmp(13, 7, 8, data + bytes(40), compression=1, palette=palette(256, ""))
        yield f"narrow-runs-{name}", bmp(13, 7, 4, data + b"\x0d\x12\0\0" * 9, compression=2, palette=palette(16, ""))


# ------------------------------------------------------------------------------------------------- orientation

KINDS = {"B": 1, "H": 3, "L": 4, "b": 6, "h": 8, "l": 9, "f": 11, "d": 12, "Q": 16}


def exif(number, order="<", kind="H", count=1, before=True, rational=None):
    """A TIFF header and a directory with an orientation."""
    values = struct.pack(f"{order}{count}{kind}", *[number] * count)
    typed = KINDS[kind]
    if rational:
        values, typed = struct.pack(f"{order}2{rational}", number * 2, 2), 5 if rational == "L" else 10
    entries = [(0x010F, 2, b"camera of some length\0", 22)] if before else []
    entries.append((0x0112, typed, values, count))
    entries.append((0x0131, 2, b"new\0", 4))
    behind = 8 + 2 + 12 * len(entries) + 4
    out, more = struct.pack(f"{order}H", len(entries)), b""
    for tag, typed, data, length in entries:
        field = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(f"{order}L", behind + len(more))
        more += b"" if len(data) <= 4 else data
        out += struct.pack(f"{order}HHL", tag, typed, length) + field
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}L", 8)
    return head + out + bytes(4) + more


def xmp(number, attribute):
    text = f'tiff:Orientation="{number}"' if attribute else f"><tiff:Orientation>{number}</tiff:Orientation"
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {text}/></x:xmpmeta>'.encode()


def spellings():
    for number in range(10):
        yield f"short-{number}", exif(number)
        yield f"long-{number}", exif(number, ">", "L")
    for order, kind in itertools.product("<>", KINDS):
        yield f"type-{order}{kind}", exif(6, order, kind)
        yield f"many-{order}{kind}", exif(8, order, kind, count=3)
    for order, rational in itertools.product("<>", "Ll"):
        yield f"rational-{order}{rational}", exif(5, order, rational=rational)
    yield "alone", exif(3, before=False)
    yield "cut", exif(3)[:30]
    yield "cut-in-its-values", exif(6, kind="L", count=3)[:-4]
    yield "prefix", b"Exif\0\0" + exif(6)
    yield "two-prefixes", b"Exif\0\0" * 2 + exif(7)


JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"


def turned():
    shape = levels(7, 4, 3)
    jpeg = saved(picture(shape), format="JPEG", quality=90, subsampling=0)
    jpeg_with = lambda *segments: jpeg[:2] + b"".join(segment(*s) for s in segments) + jpeg[2:]
    pixels = png(shape, 2, 8)
    png_with = lambda *chunks: pixels[:33] + b"".join(chunk(*c) for c in chunks) + pixels[33:]
    webp = saved(picture(shape), format="WEBP", lossless=True)[12:]

    def webp_with(flags, *chunks):
        packed = (name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for name, data in chunks)
        body = b"VP8X" + struct.pack("<IB", 10, flags) + b"\0\0\0\6\0\0\3\0\0" + webp + b"".join(packed)
        return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body

    for name, data in spellings():
        yield f"jpeg-{name}", jpeg_with((0xE1, b"Exif\0\0" + data))
        yield f"png-{name}", png_with((b"eXIf", data))
        yield f"webp-{name}", webp_with(8, (b"EXIF", data))
    for number, attribute in itertools.product((1, 3, 6, 8), (True, False)):
        text = xmp(number, attribute)
        other = exif(1)
        yield f"jpeg-xmp-{number}-{attribute}", jpeg_with((0xE1, JPEG_XMP + text))
        yield f"jpeg-xmp-behind-exif-{number}-{attribute}", jpeg_with((0xE1, b"Exif\0\0" + other), (0xE1, JPEG_XMP + text))
        yield f"webp-xmp-{number}-{attribute}", webp_with(4, (b"XMP ", text))
        key = b"XML:com.adobe.xmp\0"
        yield f"png-xmp-{number}-{attribute}", png_with((b"iTXt", key + b"\0\0\0\0" + text))
        yield f"png-packed-xmp-{number}-{attribute}", png_with((b"iTXt", key + b"\1\0en\0\0" + zlib.compress(text)))
    for number in (3, 6):
        digits = exif(number).hex()
        lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
        profile = f"\nexif\n{len(digits) // 2:8}\n{lines}\n".encode()
        key = b"Raw profile type exif\0"
        yield f"png-profile-{number}", png_with((b"tEXt", key + profile))
        yield f"png-packed-profile-{number}", png_with((b"zTXt", key + b"\0" + zlib.compress(profile)))
        behind = chunk(b"zTXt", key + b"\0" + zlib.compress(profile))
        yield f"png-profile-behind-{number}", pixels[:-12] + behind + pixels[-12:]
        yield f"png-exif-behind-{number}", pixels[:-12] + chunk(b"eXIf", exif(number)) + pixels[-12:]
    yield "jpeg-two-segments", jpeg_with((0xE1, b"Exif\0\0" + exif(6)[:40]), (0xE1, b"Exif\0\0" + exif(6)[40:]))
    yield "jpeg-two-of-them", jpeg_with((0xE1, b"Exif\0\0" + exif(6)), (0xE1, b"Exif\0\0" + exif(3)))
    yield "webp-not-announced", webp_with(0, (b"EXIF", exif(6)))
    yield "webp-two-of-them", webp_with(8, (b"EXIF", exif(6)), (b"EXIF", exif(3)))


if __name__ == "__main__":
    assert PIL.__version__ == "12.0.0", f"Pillow 12.0.0 is the reference, this is {PIL.__version__}"
    write_suite(Path(sys.argv[1]), "bmp", bmps(), skips=True)
    write_suite(Path(sys.argv[1]), "turned", turned(), skips=True)
