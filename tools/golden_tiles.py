"""Makes tests/data/images/tiles.bin, tiles.txt and canvas.txt: images of every mode and of extreme shapes, and what the
image processor of Llama-3.2-Vision (transformers, on Pillow) makes of them.

    python3.11 -m venv new && new/bin/pip install -r tools/requirements.txt
    new/bin/python tools/golden_tiles.py tests/data/images

With transformers 4.45.2 instead of 5.17 nothing is written: what is there is compared with what that version says
(it fails on images of one or three rows, and where a side would become 0).

    tiles.bin   PNG and JPEG files, one behind the other
    tiles.txt   a line for a file and a way to cut it: name, bytes of the file (0: the one of the line before), side of
                a tile, most tiles, tiles, number of the aspect ratio, FNV-1a (64 bit, hexadecimal) of the tiles
                (tiles, side, side, 3) in 8 bits, and of the encoder's input, (most tiles, 3, side, side) as float32
    canvas.txt  a line for a side and most tiles: FNV-1a of the canvas and the size of each of SIZES
"""

import io
import itertools
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL
import transformers
from PIL import Image

OLD = transformers.__version__.startswith("4.")
if OLD:
    from transformers.models.mllama import image_processing_mllama as module

    Processor = module.MllamaImageProcessor
else:
    from transformers.models.mllama import image_processing_pil_mllama as module

    Processor = module.MllamaImageProcessorPil

MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]
SHAPES = (
    (1, 1), (2, 3), (3, 2), (1, 37), (37, 1), (3, 40), (40, 3), (1, 2000), (2000, 1), (3000, 2), (2, 3000), (28, 28),
    (42, 42), (56, 28), (28, 112), (57, 56), (13, 90), (90, 13), (61, 38), (38, 61), (72, 54), (54, 72), (160, 40),
    (41, 123), (260, 31), (90, 89), (131, 99), (181, 12),
)  # fmt: skip
CUTS = ((28, 4), (56, 2), (42, 1), (14, 3), (28, 6), (42, 4), (56, 4))  # side of a tile, most tiles
CANVASES = ((14, 1), (28, 2), (42, 3), (28, 4), (56, 4), (560, 4), (448, 4), (560, 6))
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6


def sizes(side):
    """Width and height of the images whose canvas is asked for."""
    for i in range(6000):
        yield 1 + i * 7919 % 2003, 1 + i * 104729 % 1999
    for across, down in itertools.product(range(1, 8), repeat=2):
        for more in (0, 1):
            yield across * side + more, down * side - more


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


# ------------------------------------------------------------------------------------------------- files


def levels(width, height, channels, top=255):
    """Stripes and spots of every level: (height, width, channels) integers of 0..top."""
    y, x = np.mgrid[0:height, 0:width]
    planes = []
    for channel in range(channels):
        plane = (x * (37 + 6 * channel) + y * (11 + 9 * channel)) % 256
        plane = np.where((x // 5 + y // 7) % 3 == channel % 3, 255 - plane // 4, plane)
        planes.append(np.where((x + 2 * y) % (29 + channel) < 6, 0, plane))
    return np.stack(planes, -1) * top // 255


def see_through(pixels):
    """Makes the last channel an alpha with fully see-through and fully opaque parts."""
    pixels[..., -1] = np.clip(pixels[..., -1] * 2 - 128, 0, 255)
    return pixels


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(samples, colour, depth, *extra):
    height, width = samples.shape[:2]
    flat = samples.reshape(height, -1)
    if depth == 1:
        rows = np.packbits(flat.astype(np.uint8), axis=-1)
    else:
        rows = flat.astype(">u2" if depth == 16 else np.uint8).view(np.uint8).reshape(height, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *(chunk(*item) for item in extra), chunk(b"IDAT", zlib.compress(data, 9))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def inks(width, height):
    stream = io.BytesIO()
    Image.fromarray(levels(width, height, 4).astype(np.uint8), "CMYK").save(stream, format="JPEG", quality=15)
    return stream.getvalue()


COLOURS = (b"PLTE", bytes((i * factor + 17) % 256 for i in range(64) for factor in (5, 83, 149)))
ALPHAS = (b"tRNS", bytes(min(i * 5, 255) for i in range(64)))
FILES = {  # name: Pillow's mode, and the file of a width and height
    "rgb": ("RGB", lambda w, h: png(levels(w, h, 3), RGB, 8)),
    "rgb-transparent": ("RGB", lambda w, h: png(levels(w, h, 3), RGB, 8, (b"tRNS", bytes(6)))),
    "rgba": ("RGBA", lambda w, h: png(see_through(levels(w, h, 4)), RGBA, 8)),
    "grey": ("L", lambda w, h: png(levels(w, h, 1), GREY, 8)),
    "grey-transparent": ("L", lambda w, h: png(levels(w, h, 1), GREY, 8, (b"tRNS", b"\0\0"))),
    "grey-alpha": ("LA", lambda w, h: png(see_through(levels(w, h, 2)), GREY_ALPHA, 8)),
    "palette": ("P", lambda w, h: png(levels(w, h, 1, 63), PALETTE, 8, COLOURS)),
    "palette-one": ("P", lambda w, h: png(levels(w, h, 1, 63), PALETTE, 8, COLOURS, (b"tRNS", b"\xff\xff\0"))),
    "palette-many": ("P", lambda w, h: png(levels(w, h, 1, 63), PALETTE, 8, COLOURS, ALPHAS)),
    "bilevel": ("1", lambda w, h: png(levels(w, h, 1, 2) // 2, GREY, 1)),
    "grey16": ("I;16", lambda w, h: png(levels(w, h, 1, 400), GREY, 16)),
    "cmyk": ("CMYK", inks),
}


# ------------------------------------------------------------------------------------------------- expectations


def cut(image, side, most):
    """Tiles, number of the aspect ratio, 8-bit tiles, the encoder's input; None where version 4.45 fails."""
    common = dict(size={"height": side, "width": side}, max_image_tiles=most, image_mean=MEAN, image_std=STD)
    if OLD and (image.height in (1, 3) or 0 in fitted(image.width, image.height, side, most)[1]):
        return None
    raw = Processor(do_rescale=False, do_normalize=False, **common)(image, return_tensors="np")
    float_input = Processor(**common)(image, return_tensors="np")["pixel_values"][0, 0]
    tiles, ratio = int(raw["num_tiles"][0][0]), int(raw["aspect_ratio_ids"][0, 0])
    rgb = raw["pixel_values"][0, 0, :tiles].transpose(0, 2, 3, 1)
    assert float_input.dtype == np.float32 and (rgb == rgb.astype(np.uint8)).all()
    return tiles, ratio, fnv1a(rgb.astype(np.uint8).tobytes()), fnv1a(float_input.astype("<f4").tobytes())


def fitted(width, height, side, most):
    """Height and width of the canvas in pixels, and of the image on it."""
    down, across = module.get_optimal_tiled_canvas(height, width, most, side)
    return (down, across), module.get_image_size_fit_to_canvas(height, width, down, across, side)


def canvases():
    for side, most in CANVASES:
        whole = b""
        for width, height in sizes(side):
            canvas, size = fitted(width, height, side, most)
            if OLD:
                size = [max(1, length) for length in size]
            whole += struct.pack("<4I", *canvas, *size)
        yield f"{side} {most} {fnv1a(whole)}"


def tiles():
    """The lines of tiles.txt, without what 4.45 cannot say; and the files, one behind the other."""
    lines, whole, cuts = [], b"", itertools.cycle(CUTS)
    for (name, (mode, make)), (width, height) in itertools.product(FILES.items(), SHAPES):
        file = make(width, height)
        length = len(file)
        for _ in range(2):
            side, most = next(cuts)
            image = Image.open(io.BytesIO(file))
            image.load()
            assert (image.mode, image.size) == (mode, (width, height)), (name, image.mode)
            expected = cut(image, side, most)
            expected = " ".join(map(str, expected)) if expected else "-"
            lines.append(f"{name}-{width}x{height} {length} {side} {most} {expected}")
            length = 0
        whole += file
    return lines, whole


def main(folder):
    assert PIL.__version__ == "12.0.0", f"Pillow 12.0.0 is the reference, this is {PIL.__version__}"
    lines, whole = tiles()
    found = {"tiles.txt": lines, "canvas.txt": list(canvases())}
    if OLD:
        for name, said in found.items():
            kept = (folder / name).read_text().splitlines()
            different = [(a, b) for a, b in zip(kept, said, strict=True) if a != b and not b.endswith(" -")]
            unsaid = sum(line.endswith(" -") for line in said)
            print(f"{name}: {len(said)} lines, {unsaid} of which {transformers.__version__} fails on", *different)
        return
    for name, said in found.items():
        (folder / name).write_text("\n".join(said) + "\n")
    (folder / "tiles.bin").write_bytes(whole)
    print(f"tiles: {len(lines)} lines, {len(whole)} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
