"""Makes tests/data/video: small animations, and the frames that Pillow shows at the times of a sampling.

    python3 -m venv venv && venv/bin/pip install pillow==12.0.0 numpy
    venv/bin/python tools/golden_video.py tests/data/video

Written are
    exact/           GIFs and lossless WebPs, whose frames must be Pillow's to the last bit
    lossy/           a lossy WebP, with Pillow's frames beside it as NAME.0.png, NAME.1.png, ...
    expected.txt     one line per file and sampling: file, frames a second, most frames, and of each frame the FNV-1a
                     (64 bit, hexadecimal) of its bytes in convert("RGB"), followed by those in convert("RGBA")

The files of each format are written here byte by byte, because Pillow's own writers never use most of what its readers
know: ways of taking a frame away, frames of a part of the canvas, palettes of their own.
"""

import io
import itertools
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

SAMPLINGS = ((1, 8), (10, 128), (10, 3), (3.7, 5), (0.5, 1))
random = np.random.default_rng(5)


# ------------------------------------------------------------------------------------------------- what is expected


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def frames(path):
    """When each frame ends, in milliseconds, and its hash."""
    with Image.open(path) as image:
        end = 0
        for number in range(image.n_frames):
            image.seek(number)
            image.load()
            end += image.info.get("duration", 0) or 100
            yield end, fnv1a(image.convert("RGB").tobytes() + image.convert("RGBA").tobytes())


def sampled(path, per_second, most):
    shown = list(frames(path))
    looks = []
    for number in itertools.count():
        time = number * 1000 / per_second
        if time >= shown[-1][0]:
            break
        looks.append(next(picture for end, picture in shown if time < end))
    while len(looks) > 2 * most:
        looks = looks[::2]
    if len(looks) > most:
        gaps = max(most - 1, 1)
        looks = [looks[int(number * (len(looks) - 1) / gaps + 0.5)] for number in range(most)]
    return looks


# ------------------------------------------------------------------------------------------------- GIF


def blocks(data):
    parts = (data[at : at + 255] for at in range(0, len(data), 255))
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def packed(indices):
    """LZW that never makes a word: codes of 9 bits, and a new table before they would grow."""
    codes = []
    for at in range(0, len(indices), 200):
        codes += [256, *indices[at : at + 200]]
    number = sum(code << 9 * place for place, code in enumerate([*codes, 257]))
    return b"\x08" + blocks(number.to_bytes((9 * len(codes) + 16) // 8, "little"))


def colours(count):
    return random.integers(0, 256, 3 * count, dtype=np.uint8).tobytes()


def gif(size, layers, palette=None, background=0):
    """Layers are (left, top, width, height) and named settings; `bare` ones have no graphic control extension."""
    table = 0x80 | (len(palette) // 3).bit_length() - 2 if palette else 0
    file = b"GIF89a" + struct.pack("<HHBBB", *size, table, background, 0) + (palette or b"")
    for (left, top, width, height), settings in layers:
        local, transparent = settings.get("palette"), settings.get("transparent")
        if not settings.get("bare"):
            flags = settings.get("method", 0) << 2 | (transparent is not None)
            file += struct.pack("<BBBBHBB", 0x21, 0xF9, 4, flags, settings.get("delay", 10), transparent or 0, 0)
        table = 0x80 | (len(local) // 3).bit_length() - 2 if local else 0
        file += struct.pack("<BHHHHB", 0x2C, left, top, width, height, table)
        file += local or b""
        entries = len(local or palette) // 3
        indices = random.integers(0, entries, width * height)
        if transparent is not None:
            indices[random.random(width * height) < 0.4] = transparent
        file += packed([int(index) for index in indices])
    return file + b";"


def gifs():
    whole, part, corner = (0, 0, 12, 9), (3, 2, 6, 5), (8, 4, 4, 5)
    palette = colours(16)

    def film(first, *layers, **settings):
        return gif((12, 9), [(whole, first), *layers], palette, **settings)

    yield "plain.gif", film({}, (whole, {}), (part, {}), (corner, {"delay": 35}))
    for name, seen in (("opaque", {}), ("seen-through", {"transparent": 5})):
        for method in range(4):
            later = {"method": method, "transparent": 3}
            yield f"method{method}-{name}.gif", film(
                {"method": method, **seen}, (part, later), (corner, later), (part, {"method": method}), (whole, later),
                background=7,
            )
    yield "mixed.gif", film(
        {"method": 1}, (part, {"method": 2, "transparent": 1}), (corner, {"method": 3}), (part, {"method": 1}),
        (corner, {"method": 3, "transparent": 2}), (whole, {"method": 2, "transparent": 9}), (part, {}), (corner, {}),
    )
    local = {"palette": colours(8), "method": 2}
    yield "own-palettes.gif", film({}, (part, local), (corner, {"transparent": 4, **local}), (whole, {}), background=12)
    yield "no-common-palette.gif", gif((12, 9), [(whole, local), (part, {"palette": colours(4)})])
    yield "first-in-part.gif", gif((12, 9), [(part, {"method": 2}), (corner, {}), (part, {})], palette)
    yield "first-in-part-seen-through.gif", gif(
        (12, 9), [(part, {"method": 3, "transparent": 2}), (corner, {"transparent": 2}), (part, {})], palette
    )
    yield "first-beyond.gif", gif((6, 5), [(part, {}), ((0, 0, 9, 7), {"transparent": 1})], palette)
    yield "without-control.gif", film({"bare": True}, (part, {"bare": True}), (corner, {"delay": 0}), (part, {}))
    yield "delays.gif", film({"delay": 0}, (part, {"delay": 100}), (part, {"delay": 1}), (corner, {"delay": 530}))
    yield "still.gif", film({"transparent": 1})
    yield "two-colours.gif", gif((5, 4), [((0, 0, 5, 4), {}), ((1, 1, 2, 2), {})], colours(2))
    pictures = [Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8)) for _ in range(20)]
    stream = io.BytesIO()
    pictures[0].save(stream, "GIF", save_all=True, append_images=pictures[1:], duration=[90, 410] * 10, loop=0)
    yield "pillows.gif", stream.getvalue()


# ------------------------------------------------------------------------------------------------- WebP


def chunk(name, data):
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def three(number):
    return struct.pack("<I", number)[:3]


def picture(width, height, has_alpha):
    pixels = random.integers(0, 256, (height, width, 4), dtype=np.uint8)
    # Fully see-through, fully opaque and between.
    pixels[..., 3] = np.clip(pixels[..., 3].astype(int) * 2 - 128, 0, 255) if has_alpha else 255
    return Image.fromarray(pixels)


def webp(size, layers, has_alpha=True, background=(9, 99, 199, 255), **options):
    """Layers are (left, top, width, height), whether it blends, whether its place is cleared after, and the delay."""
    header = bytes([0x02 | 0x10 * has_alpha, 0, 0, 0]) + three(size[0] - 1) + three(size[1] - 1)
    body = chunk(b"VP8X", header) + chunk(b"ANIM", bytes(background) + b"\0\0")
    for (left, top, width, height), blends, clears, delay in layers:
        stream = io.BytesIO()
        picture(width, height, has_alpha).save(stream, "WEBP", exact=True, **options)
        # What stands behind the header of a file of its own, which a picture without alpha does not have.
        content = stream.getvalue()[12:]
        content = content[18:] if content.startswith(b"VP8X") else content
        place = three(left // 2) + three(top // 2) + three(width - 1) + three(height - 1)
        body += chunk(b"ANMF", place + three(delay) + bytes([(not blends) << 1 | clears]) + content)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def webps():
    whole, part, corner = (0, 0, 13, 9), (4, 2, 6, 5), (8, 4, 5, 5)
    places = (whole, part, corner, part, whole, corner, whole, part)
    for blends, clears in itertools.product((0, 1), (0, 1)):
        for has_alpha in (0, 1):
            layers = [(place, blends, clears, 100) for place in places]
            name = f"{'alpha' if has_alpha else 'opaque'}-blend{blends}-clear{clears}.webp"
            yield name, webp((13, 9), layers, bool(has_alpha), lossless=True)
    for seed in range(3):
        layers = [(places[random.integers(8)], *random.integers(0, 2, 2), int(random.integers(0, 300))) for _ in range(24)]
        yield f"mixed{seed}.webp", webp((13, 9), layers, lossless=True)
    yield "first-in-part.webp", webp((13, 9), [(part, 1, 1, 700), (corner, 1, 0, 800), (part, 1, 0, 0)], lossless=True)
    stream = io.BytesIO()
    picture(13, 9, True).save(stream, "WEBP", lossless=True, exact=True)
    yield "still.webp", stream.getvalue()


def main(folder):
    assert PIL.__version__ == "12.0.0", f"Pillow 12.0.0 is the reference, this is {PIL.__version__}"
    for name in ("exact", "lossy"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    lines = []
    for name, content in (*gifs(), *webps()):
        path = folder / "exact" / name
        path.write_bytes(content)
        for per_second, most in SAMPLINGS:
            hashes = " ".join(f"{value:016x}" for value in sampled(path, per_second, most))
            lines.append(f"{name} {per_second} {most} {hashes}")
    (folder / "expected.txt").write_text("\n".join(lines) + "\n")
    for name, has_alpha in (("opaque", False), ("alpha", True)):
        path = folder / "lossy" / f"{name}.webp"
        layers = [((0, 0, 24, 16), 0, 0, 1000), ((4, 2, 14, 12), 1, 0, 1000)]
        path.write_bytes(webp((24, 16), layers, has_alpha, quality=70))
        with Image.open(path) as image:
            for number in range(image.n_frames):
                image.seek(number)
                image.save(folder / "lossy" / f"{name}.{number}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
