"""Makes tests/data/images: small pictures of every format and mode, and what Pillow makes of them.

    python3 -m venv venv && venv/bin/pip install pillow==12.0.0 numpy
    venv/bin/python tools/golden_images.py tests/data/images

Written are
    sources/         pictures that every decoder must read alike, to the last bit
    lossy/           JPEG, lossy WebP and 16-bit BMP pictures, each with Pillow's pixels beside it as NAME.png
    bombs/           files that unpack to far more than they hold
    expected.txt     one line per pair: file, rule, size, FNV-1a (64 bit, hexadecimal) of the (size, size, 3) RGB bytes
    levels.txt       256 lines: what a level becomes in red, green and blue of the encoder's input, as bits of float32

The rules are those of OpenFlamingo ("crop": open_clip 2.20 and torchvision on PIL) and of IDEFICS ("stretch":
transformers 4.44), written out here in calls to Pillow. Pillow 13 orders the passes of a resize differently: 12.0.0
is the reference.
"""

import io
import itertools
import shutil
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageFilter, ImageOps

SIZES = (28, 42, 224)
SHAPES = ((45, 30), (30, 45), (64, 64), (1, 37), (37, 1), (61, 38), (1, 1), (2, 3), (131, 24), (48, 75), (28, 28))
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
random = np.random.default_rng(20)


# ------------------------------------------------------------------------------------------------- the two rules


def crop(image, size):
    """open_clip: Resize(size), CenterCrop(size), convert("RGB")."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    resized = (size, int(size * long / short)) if width <= height else (int(size * long / short), size)
    if resized != (width, height):
        image = image.resize(resized, Image.Resampling.BICUBIC)
    left, top = int(round((resized[0] - size) / 2.0)), int(round((resized[1] - size) / 2.0))
    return image.crop((left, top, left + size, top + size)).convert("RGB")


def stretch(image, size):
    """IdeficsImageProcessor: convert_to_rgb, resize((size, size))."""
    if image.mode != "RGB":
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255)), image).convert("RGB")
    return image.resize((size, size), Image.Resampling.BICUBIC)


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def expectations(path):
    for rule, size in itertools.product((crop, stretch), SIZES):
        image = Image.open(path)
        image.load()
        rgb = rule(ImageOps.exif_transpose(image), size)
        yield f"{path.name} {rule.__name__} {size} {fnv1a(rgb.tobytes()):016x}"


# ------------------------------------------------------------------------------------------------- content


def levels(width, height, channels, top=255):
    """Waves with an edge and some noise: (height, width, channels) integers of 0..top."""
    y, x = np.mgrid[0:height, 0:width]
    planes = []
    for channel in range(channels):
        wave = np.sin(x / (3 + 2 * channel) + y / 7) * 0.3 + x / max(width, 8) * 0.3 + 0.35
        wave = np.where((x * 3 + y * 5) % 41 < 9, 1.1 - wave, wave) + random.normal(0, 0.03, (height, width))
        planes.append(wave)
    return (np.clip(np.stack(planes, -1), 0, 1) * top).round().astype(np.uint16)


def noise(width, height, channels, top=255):
    return random.integers(0, top + 1, (height, width, channels), dtype=np.uint16)


def with_alpha(pixels):
    """Makes the last channel an alpha with fully see-through and fully opaque parts."""
    alpha = pixels[..., -1].astype(np.int64) * 2 - 128
    pixels[..., -1] = np.clip(alpha, 0, 255)
    return pixels


# ------------------------------------------------------------------------------------------------- writers


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def pack_rows(samples, depth):
    """Rows of a PNG with filter 0, for (height, width, channels) samples."""
    height = samples.shape[0]
    flat = samples.reshape(height, -1)
    if depth == 16:
        rows = flat.astype(">u2").view(np.uint8).reshape(height, -1)
    else:
        bits = np.unpackbits(flat.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        rows = np.packbits(bits.reshape(height, -1), axis=-1)
    return b"".join(b"\0" + row.tobytes() for row in rows)


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(samples, colour, depth, extra=(), interlaced=False):
    """A PNG; Pillow writes neither 2-bit grey nor 16-bit colour nor interlacing."""
    height, width = samples.shape[:2]
    if interlaced:
        passes = (samples[y::dy, x::dx] for x, y, dx, dy in ADAM7)
        rows = b"".join(pack_rows(part, depth) for part in passes if part.size)
    else:
        rows = pack_rows(samples, depth)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    chunks = [chunk(b"IHDR", header), *(chunk(*item) for item in extra), chunk(b"IDAT", zlib.compress(rows, 9))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def bmp(width, height, bits, palette, rows, masks=b""):
    """An uncompressed BMP from finished rows, the lowest first."""
    rows = b"".join(row + bytes(-len(row) % 4) for row in rows)
    offset = 54 + len(palette) + len(masks)
    colours = len(palette) // 4
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 3 if masks else 0, len(rows), 2835, 2835, colours, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + info + masks + palette + rows


def saved(image, **options):
    stream = io.BytesIO()
    image.save(stream, **options)
    return stream.getvalue()


def picture(pixels):
    pixels = pixels.astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


# ------------------------------------------------------------------------------------------------- the pictures

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6


def palette(entries):
    return (b"PLTE", random.integers(0, 256, 3 * entries, dtype=np.uint8).tobytes())


def png_kinds():
    """Name, and a function of a shape that gives the file."""
    for depth in (1, 2, 4, 8, 16):
        top = 2**depth - 1
        yield f"grey{depth}", lambda w, h, d=depth, t=top: png(levels(w, h, 1, t), GREY, d)
        see_through = (b"tRNS", struct.pack(">H", top * 200 // 255))
        yield f"grey{depth}-trns", lambda w, h, d=depth, t=top, s=see_through: png(levels(w, h, 1, t), GREY, d, [s])
    for depth in (1, 2, 4, 8):
        top = 2**depth - 1
        yield f"palette{depth}", lambda w, h, d=depth, t=top: png(levels(w, h, 1, t), PALETTE, d, [palette(t + 1)])
    yield "palette-short", lambda w, h: png(levels(w, h, 1, 99), PALETTE, 8, [palette(100)])
    one = (b"tRNS", b"\xff\xff\xff\0")
    yield "palette4-trns-one", lambda w, h: png(levels(w, h, 1, 15), PALETTE, 4, [palette(16), one])
    many = (b"tRNS", bytes(range(0, 256, 2)))
    yield "palette8-trns-many", lambda w, h: png(levels(w, h, 1), PALETTE, 8, [palette(256), many])
    yield "grey-alpha8", lambda w, h: png(with_alpha(levels(w, h, 2)), GREY_ALPHA, 8)
    yield "grey-alpha16", lambda w, h: png(levels(w, h, 2, 65535), GREY_ALPHA, 16)
    yield "rgb8", lambda w, h: png(levels(w, h, 3), RGB, 8)
    yield "rgb8-noise", lambda w, h: png(noise(w, h, 3), RGB, 8)
    yield "rgb8-interlaced", lambda w, h: png(levels(w, h, 3), RGB, 8, interlaced=True)
    yield "rgb16", lambda w, h: png(levels(w, h, 3, 65535), RGB, 16)
    flat = lambda w, h: levels(w, h, 3, 7) * 32
    yield "rgb8-trns", lambda w, h: png(flat(w, h), RGB, 8, [(b"tRNS", struct.pack(">HHH", 96, 96, 96))])
    yield "rgba8", lambda w, h: png(with_alpha(levels(w, h, 4)), RGBA, 8)
    yield "rgba8-noise", lambda w, h: png(noise(w, h, 4), RGBA, 8)
    yield "rgba16", lambda w, h: png(levels(w, h, 4, 65535), RGBA, 16)
    yield "grey16-noise", lambda w, h: png(noise(w, h, 1, 65535), GREY, 16)
    yield "grey16-dark", lambda w, h: png(levels(w, h, 1, 300), GREY, 16)


def exact_sources():
    """Name and content of every picture that must be decoded without a difference."""
    shapes = itertools.cycle(SHAPES)
    for name, make in png_kinds():
        for width, height in itertools.islice(shapes, 3):
            yield f"{name}-{width}x{height}.png", make(width, height)
    for name, make in (("grey-alpha8", with_alpha(levels(28, 28, 2))), ("rgba8", with_alpha(levels(42, 42, 4)))):
        side = len(make)
        yield f"{name}-same-{side}.png", png(make, GREY_ALPHA if name.startswith("grey") else RGBA, 8)
    orientation = Image.Exif()
    orientation[0x0112] = 6
    yield "rgb8-turned.png", png(levels(45, 30, 3), RGB, 8, [(b"eXIf", orientation.tobytes()[6:])])

    tiled = picture(levels(50, 35, 3)).quantize(40)
    yield "palette.gif", saved(tiled, format="GIF")
    yield "palette-trns.gif", saved(tiled, format="GIF", transparency=7, interlace=0)
    frames = [picture(levels(33, 44, 3)).quantize(16) for _ in range(3)]
    yield "animated.gif", saved(frames[0], format="GIF", save_all=True, append_images=frames[1:], loop=0)
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16, 1)
    yield "grey-ramp.gif", saved(picture(ramp), format="GIF", optimize=False)
    yield "grey-ramp-trns.gif", saved(picture(ramp), format="GIF", optimize=False, transparency=100)
    yield "two-colours.gif", saved(picture(levels(1, 20, 3)).quantize(2), format="GIF")
    for name, options in (("offset", {}), ("offset-trns", {"transparency": 3})):
        file = bytearray(saved(tiled, format="GIF", optimize=False, **options))
        at = file.index(b",\0\0\0\0" + struct.pack("<HH", 50, 35))
        file[6:10] = struct.pack("<HH", 60, 30)
        file[at + 1 : at + 5] = struct.pack("<HH", 4, 9)
        yield f"{name}.gif", bytes(file)

    yield "lossless.webp", saved(picture(levels(41, 60, 3)), format="WEBP", lossless=True)
    yield "lossless-alpha.webp", saved(picture(with_alpha(levels(60, 41, 4))), format="WEBP", lossless=True, exact=True)
    yield "lossless-turned.webp", saved(picture(levels(40, 30, 3)), format="WEBP", lossless=True, exif=orientation)
    frames = [picture(with_alpha(levels(29, 37, 4))) for _ in range(2)]
    yield "animated.webp", saved(frames[0], format="WEBP", save_all=True, append_images=frames[1:], lossless=True)

    yield "bilevel.bmp", saved(picture(levels(31, 22, 1)).convert("1"), format="BMP")
    yield "grey.bmp", saved(picture(levels(31, 22, 1)), format="BMP")
    yield "palette.bmp", saved(tiled, format="BMP")
    yield "rgb.bmp", saved(picture(levels(31, 42, 3)), format="BMP")
    yield "rgba.bmp", saved(picture(with_alpha(levels(31, 42, 4))), format="BMP")
    colours = random.integers(0, 256, (16, 4), dtype=np.uint8)
    indices = levels(26, 17, 1, 15)[..., 0].astype(np.uint8)
    yield "palette4.bmp", bmp(26, 17, 4, colours.tobytes(), [(row[::2] << 4 | row[1::2]).tobytes() for row in indices])


def smooth_colours(image):
    """Blurs hue and saturation and leaves the brightness, which is how photographs are."""
    y, cb, cr = image.convert("YCbCr").split()
    blurred = (plane.filter(ImageFilter.GaussianBlur(2)) for plane in (cb, cr))
    return Image.merge("YCbCr", (y, *blurred)).convert("RGB")


def lossy_sources():
    """Name and content of the pictures whose decoders may round differently."""
    photo = smooth_colours(picture(levels(72, 53, 3)))
    for quality, subsampling in ((90, 0), (90, 1), (90, 2), (60, 2)):
        options = {"format": "JPEG", "quality": quality, "subsampling": subsampling}
        yield f"rgb-q{quality}-s{subsampling}.jpg", saved(photo, **options)
    yield "progressive.jpg", saved(photo, format="JPEG", quality=85, progressive=True)
    yield "grey.jpg", saved(photo.convert("L"), format="JPEG", quality=85)
    yield "cmyk.jpg", saved(photo.convert("CMYK"), format="JPEG", quality=95)
    yield "narrow.jpg", saved(picture(levels(1, 23, 3)), format="JPEG", quality=90, subsampling=0)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned = saved(photo.resize((40, 27)), format="JPEG", quality=92, subsampling=0, exif=exif)
        yield f"orientation{orientation}.jpg", turned
    yield "lossy.webp", saved(photo, format="WEBP", quality=80)
    translucent = photo.copy()
    translucent.putalpha(picture(levels(72, 53, 1)))
    yield "lossy-alpha.webp", saved(translucent, format="WEBP", quality=80)
    words = [row.astype("<u2").tobytes() for row in levels(26, 17, 1, 0x7FFF)[..., 0]]
    yield "rgb555.bmp", bmp(26, 17, 16, b"", words)
    yield "rgb565.bmp", bmp(26, 17, 16, b"", words, struct.pack("<III", 0xF800, 0x07E0, 0x001F))


def bombs():
    """Files that hold many megabytes of zeros in few bytes."""
    pixel = np.zeros((1, 1, 3), np.uint16)
    zeros = zlib.compress(bytes(8_000_000), 9)
    yield "text.png", png(pixel, RGB, 8, [(b"zTXt", b"Comment\0\0" + zeros)])
    yield "profile.png", png(pixel, RGB, 8, [(b"iCCP", b"profile\0\0" + zeros)])
    whole = png(pixel, RGB, 8)
    yield "pixels.png", whole[:33] + chunk(b"IDAT", zeros) + chunk(b"IEND", b"")


def main(folder):
    assert PIL.__version__ == "12.0.0", f"Pillow 12.0.0 is the reference, this is {PIL.__version__}"
    for name in ("sources", "lossy", "bombs"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    for name, content in exact_sources():
        (folder / "sources" / name).write_bytes(content)
    for name, content in lossy_sources():
        path = folder / "lossy" / name
        path.write_bytes(content)
        image = ImageOps.exif_transpose(Image.open(path))
        image = image.convert("RGB") if image.mode == "CMYK" else image
        clean = Image.fromarray(np.asarray(image))
        clean.save(folder / "lossy" / f"{name}.png", optimize=True)
    for name, content in bombs():
        (folder / "bombs" / name).write_bytes(content)

    pictures = sorted((folder / "sources").iterdir()) + sorted((folder / "lossy").glob("*.png"))
    lines = [line for path in pictures for line in expectations(path)]
    (folder / "expected.txt").write_text("\n".join(lines) + "\n")
    table = (np.arange(256, dtype=np.float32)[:, None] / np.float32(255) - MEAN) / STD
    rows = (" ".join(f"{value.view(np.uint32):08x}" for value in row) for row in table)
    (folder / "levels.txt").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
