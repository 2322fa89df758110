"""Makes tests/data/images/jpeg.bin and jpeg.txt: more than 600 JPEGs and what Pillow makes of them.

    python3 -m venv venv && venv/bin/pip install pillow==12.0.0 numpy
    venv/bin/python tools/golden_jpeg.py tests/data/images

The first is all files one after the other, the second a line each: name, bytes, width, height, and FNV-1a (64 bit,
hexadecimal) of the (height, width, 3) RGB bytes, turned upright. Two encoders write them: Pillow's, and one of our own
for what Pillow does not write, whose coefficients are random: every sampling, scans one by one, spectral selection,
16-bit tables, inks with each Adobe transform, odd segments, arithmetic coding.
"""

import io
import itertools
import struct
import sys
from pathlib import Path

import numpy as np
import PIL
from golden_images import fnv1a, levels, noise, picture, smooth_colours
from PIL import Image, ImageOps

random = np.random.default_rng(13)
ZIGZAG = sorted(range(64), key=lambda n: (n // 8 + n % 8, (n // 8 if (n // 8 + n % 8) % 2 else n % 8)))

# ------------------------------------------------------------------------------------------------- Pillow's encoder

SIDES = [1, 2, 3, 4, 5, 7, 8, 9, 11, 15, 16, 17, 23, 31, 32, 33, 40, 47, 63, 64, 65, 71]
KINDS = [
    {"subsampling": 0},
    {"subsampling": 1},
    {"subsampling": 2},
    {"subsampling": 2, "progressive": True},
    {"subsampling": 0, "progressive": True},
    {"subsampling": 1, "optimize": True},
    {"subsampling": 2, "restart_marker_blocks": 3},
    {"subsampling": 1, "restart_marker_rows": 1, "progressive": True},
    {"keep_rgb": True},
]


def pillows():
    qualities = itertools.cycle((30, 75, 90, 98))
    for number, (width, height) in enumerate(zip(SIDES * 2, SIDES[::-1] + SIDES[5:] + SIDES[:5])):
        image = picture(levels(width, height, 3)) if number % 3 else picture(noise(width, height, 3))
        image = image if number % 2 else smooth_colours(image)
        for kind, options in enumerate(KINDS):
            yield f"pillow{kind}-{width}x{height}", saved(image, quality=next(qualities), **options)
        yield f"grey-{width}x{height}", saved(image.convert("L"), quality=next(qualities), progressive=number % 2 == 0)
        if number % 3 == 0:
            yield f"cmyk-{width}x{height}", saved(image.convert("CMYK"), quality=next(qualities))
    for width, height in ((1024, 3), (3, 1024), (300, 200), (640, 16)):
        image = smooth_colours(picture(levels(width, height, 3)))
        for kind, options in enumerate(KINDS[:6]):
            yield f"long{kind}-{width}x{height}", saved(image, quality=20, **options)


def saved(image, **options):
    stream = io.BytesIO()
    image.save(stream, format="JPEG", **options)
    return stream.getvalue()


# ------------------------------------------------------------------------------------------------- our own encoder


class Bits:
    """Huffman-coded bits, with stuffed zeros."""

    def __init__(self):
        self.value, self.count, self.bytes = 0, 0, bytearray()

    def put(self, value, count):
        self.value, self.count = self.value << count | value, self.count + count
        while self.count >= 8:
            self.count -= 8
            byte = self.value >> self.count & 255
            self.bytes += bytes([byte, 0]) if byte == 255 else bytes([byte])

    def finish(self):
        if self.count:
            self.put((1 << 8 - self.count) - 1, 8 - self.count)
        return bytes(self.bytes)


def code_of(number, symbols):
    """Codes of one length, 9 bits for up to 511 symbols: a table that is whole and simple."""
    return symbols.index(number), 9


DC = list(range(12))
AC = [run << 4 | size for run in range(16) for size in range(1, 11)] + [0, 0xF0]


def huffman_table(place, symbols):
    return segment(0xC4, bytes([place]) + bytes([0] * 8 + [len(symbols)] + [0] * 7) + bytes(symbols))


def put_number(bits, number, size):
    bits.put(number if number >= 0 else number + (1 << size) - 1, size)


def put_block(bits, block, last, start, end):
    """One block of a scan of the coefficients start to end."""
    if start == 0:
        difference = int(block[0]) - last
        size = abs(difference).bit_length()
        bits.put(*code_of(size, DC))
        put_number(bits, difference, size)
    run = 0
    for number in (int(n) for n in block[max(start, 1) : end + 1]):
        if number == 0:
            run += 1
            continue
        while run > 15:
            bits.put(*code_of(0xF0, AC))
            run -= 16
        size = abs(number).bit_length()
        bits.put(*code_of(run << 4 | size, AC))
        put_number(bits, number, size)
        run = 0
    if run:
        bits.put(*code_of(0, AC))


# The state machine of T.81, table D.3: estimate, next state if less probable, if more probable, whether to switch.
QE = [
    (0x5A1D, 1, 1, 1), (0x2586, 14, 2, 0), (0x1114, 16, 3, 0), (0x080B, 18, 4, 0), (0x03D8, 20, 5, 0),
    (0x01DA, 23, 6, 0), (0x00E5, 25, 7, 0), (0x006F, 28, 8, 0), (0x0036, 30, 9, 0), (0x001A, 33, 10, 0),
    (0x000D, 35, 11, 0), (0x0006, 9, 12, 0), (0x0003, 10, 13, 0), (0x0001, 12, 13, 0), (0x5A7F, 15, 15, 1),
    (0x3F25, 36, 16, 0), (0x2CF2, 38, 17, 0), (0x207C, 39, 18, 0), (0x17B9, 40, 19, 0), (0x1182, 42, 20, 0),
    (0x0CEF, 43, 21, 0), (0x09A1, 45, 22, 0), (0x072F, 46, 23, 0), (0x055C, 48, 24, 0), (0x0406, 49, 25, 0),
    (0x0303, 51, 26, 0), (0x0240, 52, 27, 0), (0x01B1, 54, 28, 0), (0x0144, 56, 29, 0), (0x00F5, 57, 30, 0),
    (0x00B7, 59, 31, 0), (0x008A, 60, 32, 0), (0x0068, 62, 33, 0), (0x004E, 63, 34, 0), (0x003B, 32, 35, 0),
    (0x002C, 33, 9, 0), (0x5AE1, 37, 37, 1), (0x484C, 64, 38, 0), (0x3A0D, 65, 39, 0), (0x2EF1, 67, 40, 0),
    (0x261F, 68, 41, 0), (0x1F33, 69, 42, 0), (0x19A8, 70, 43, 0), (0x1518, 72, 44, 0), (0x1177, 73, 45, 0),
    (0x0E74, 74, 46, 0), (0x0BFB, 75, 47, 0), (0x09F8, 77, 48, 0), (0x0861, 78, 49, 0), (0x0706, 79, 50, 0),
    (0x05CD, 48, 51, 0), (0x04DE, 50, 52, 0), (0x040F, 50, 53, 0), (0x0363, 51, 54, 0), (0x02D4, 52, 55, 0),
    (0x025C, 53, 56, 0), (0x01F8, 54, 57, 0), (0x01A4, 55, 58, 0), (0x0160, 56, 59, 0), (0x0125, 57, 60, 0),
    (0x00F6, 58, 61, 0), (0x00CB, 59, 62, 0), (0x00AB, 61, 63, 0), (0x008F, 61, 32, 0), (0x5B12, 65, 65, 1),
    (0x4D04, 80, 66, 0), (0x412C, 81, 67, 0), (0x37D8, 82, 68, 0), (0x2FE8, 83, 69, 0), (0x293C, 84, 70, 0),
    (0x2379, 86, 71, 0), (0x1EDF, 87, 72, 0), (0x1AA9, 87, 73, 0), (0x174E, 72, 74, 0), (0x1424, 72, 75, 0),
    (0x119C, 74, 76, 0), (0x0F6B, 74, 77, 0), (0x0D51, 75, 78, 0), (0x0BB6, 77, 79, 0), (0x0A40, 77, 48, 0),
    (0x5832, 80, 81, 1), (0x4D1C, 88, 82, 0), (0x438E, 89, 83, 0), (0x3BDD, 90, 84, 0), (0x34EE, 91, 85, 0),
    (0x2EAE, 92, 86, 0), (0x299A, 93, 87, 0), (0x2516, 86, 71, 0), (0x5570, 88, 89, 1), (0x4CA9, 95, 90, 0),
    (0x44D9, 96, 91, 0), (0x3E22, 97, 92, 0), (0x3824, 99, 93, 0), (0x32B4, 99, 94, 0), (0x2E17, 93, 86, 0),
    (0x56A8, 95, 96, 1), (0x4F46, 101, 97, 0), (0x47E5, 102, 98, 0), (0x41CF, 103, 99, 0), (0x3C3D, 104, 100, 0),
    (0x375E, 99, 93, 0), (0x5231, 105, 102, 0), (0x4C0F, 106, 103, 0), (0x4639, 107, 104, 0), (0x415E, 103, 99, 0),
    (0x5627, 105, 106, 1), (0x50E7, 108, 107, 0), (0x4B85, 109, 103, 0), (0x5597, 110, 109, 0),
    (0x504F, 111, 107, 0), (0x5A10, 110, 111, 1), (0x5522, 112, 109, 0), (0x59EB, 112, 111, 1),
    (0x5A1D, 113, 113, 0),
]  # fmt: skip


class Arithmetic:
    """The encoder of T.81, annex D, with one long number in place of its carries. Contexts are named as one likes."""

    EVEN = "even"

    def __init__(self):
        self.code, self.bits, self.interval = 0, 0, 0x10000
        self.statistics = {self.EVEN: (113, 0)}

    def put(self, context, decision):
        index, likely = self.statistics.get(context, (0, 0))
        estimate, less, more, switch = QE[index]
        self.interval -= estimate
        is_likely = decision == likely
        if is_likely and self.interval >= 0x8000:
            return
        # The larger part stands for the likely decision, below the other.
        if is_likely == (self.interval < estimate):
            self.code, self.interval = self.code + self.interval, estimate
        self.statistics[context] = (more, likely) if is_likely else (less, likely ^ switch)
        while self.interval < 0x8000:
            self.interval, self.code, self.bits = self.interval * 2, self.code * 2, self.bits + 1

    def finish(self):
        # 16 bits of the register stand behind the point.
        total = self.bits + 16
        shift = -total % 8
        return (self.code << shift).to_bytes((total + shift) // 8, "big").replace(b"\xff", b"\xff\0")


def put_magnitude(coder, magnitude, first, rest):
    """A number above 0: its size less 1 in ones, then its bits. `rest` names the contexts behind the first."""
    number = magnitude - 1
    size = number.bit_length()
    contexts = [first, *rest]
    for place in range(size):
        coder.put(contexts[place], 1)
    coder.put(contexts[size], 0)
    for place in range(size - 2, -1, -1):
        coder.put((contexts[size], "bits"), number >> place & 1)


def segment(marker, content):
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


class Picture:
    """Random coefficients of components with sampling factors, and how they are written."""

    def __init__(self, width, height, factors, ids=None):
        self.width, self.height, self.factors = width, height, factors
        self.ids = ids or range(1, len(factors) + 1)
        across, down = max(h for h, _ in factors), max(v for _, v in factors)
        self.units = -(-width // (8 * across)), -(-height // (8 * down))
        self.blocks, self.used = [], []
        for h, v in factors:
            shape = self.units[1] * v, self.units[0] * h
            spread = 90 / (1 + np.arange(64)) * (random.random((*shape, 64)) < 0.25)
            blocks = random.normal(0, 1, (*shape, 64)) * spread
            # What 16-bit tables multiply by more than 255 is small, so that no level is far beyond its range: what an
            # inverse transform makes of that depends on the machine, in Pillow too.
            blocks[..., 40:] = np.clip(blocks[..., 40:], -1, 1)
            blocks[..., 0] = np.clip(np.cumsum(random.normal(0, 8, shape), axis=1), -100, 100)
            self.blocks.append(blocks.round().astype(int))
            self.used.append((-(-height * v // (8 * down)), -(-width * h // (8 * across))))

    def frame(self, marker):
        content = struct.pack(">BHHB", 8, self.height, self.width, len(self.factors))
        for number, (h, v) in zip(self.ids, self.factors):
            content += bytes([number, h << 4 | v, 0 if number == self.ids[0] else 1])
        return segment(marker, content)

    def order(self, components):
        """The blocks of a scan, as (component, block), in lists of one unit each."""
        if len(components) == 1:
            rows, columns = self.used[components[0]]
            return [[(components[0], self.blocks[components[0]][y, x])] for y in range(rows) for x in range(columns)]
        units = []
        for y, x in itertools.product(range(self.units[1]), range(self.units[0])):
            unit = []
            for c in components:
                h, v = self.factors[c]
                unit += [(c, self.blocks[c][y * v + j, x * h + i]) for j in range(v) for i in range(h)]
            units.append(unit)
        return units

    def scan(self, components, start=0, end=63, restart=0):
        head = bytes([len(components)]) + b"".join(bytes([self.ids[c], 0x00]) for c in components)
        out = segment(0xDA, head + bytes([start, end, 0]))
        units = self.order(components)
        step = restart or len(units)
        for number, at in enumerate(range(0, len(units), step)):
            bits, last = Bits(), {}
            for c, block in itertools.chain.from_iterable(units[at : at + step]):
                put_block(bits, block, last.get(c, 0), start, end)
                last[c] = int(block[0])
            out += bits.finish()
            if at + step < len(units):
                out += bytes([0xFF, 0xD0 + number % 8])
        return out

    def arithmetic_scan(self, components, restart=0):
        head = bytes([len(components)]) + b"".join(bytes([self.ids[c], 0x00]) for c in components)
        out = segment(0xDA, head + bytes([0, 63, 0]))
        units = self.order(components)
        step = restart or len(units)
        for number, at in enumerate(range(0, len(units), step)):
            coder, last = Arithmetic(), {}
            for c, block in itertools.chain.from_iterable(units[at : at + step]):
                self.put_arithmetic_block(coder, c, block, last)
            out += coder.finish()
            if at + step < len(units):
                out += bytes([0xFF, 0xD0 + number % 8])
        return out

    @staticmethod
    def put_arithmetic_block(coder, c, block, last):
        """With the conditioning that holds where no segment sets another: L 0, U 1, K 5."""
        before, state = last.get(c, (0, 0))
        difference = int(block[0]) - before
        magnitude, sign = abs(difference), int(difference < 0)
        coder.put(("difference", state), int(magnitude > 0))
        if magnitude:
            coder.put(("sign", state), sign)
            put_magnitude(coder, magnitude, (state, "first", sign), [("dc", n) for n in range(16)])
        size = 0 if magnitude < 2 else 1 << (magnitude - 1).bit_length() - 1
        last[c] = int(block[0]), 0 if magnitude == 0 else 1 + sign + (2 if size > 1 else 0)
        end = max([k for k in range(1, 64) if block[k]], default=0)
        k = 1
        while k <= end:
            coder.put((k, "end"), 0)
            while not block[k]:
                coder.put((k, "is not 0"), 0)
                k += 1
            coder.put((k, "is not 0"), 1)
            coder.put(coder.EVEN, int(block[k] < 0))
            # The first two decisions have one context.
            group = [(k <= 5, "ac", n) for n in range(16)]
            put_magnitude(coder, abs(int(block[k])), (k, "first"), [(k, "first"), *group])
            k += 1
        if k <= 63:
            coder.put((k, "end"), 1)


def tables(wide):
    out = b""
    for number in (0, 1):
        values = np.clip(1 + np.arange(64) // 3 + random.integers(0, 9, 64), 1, 255)
        if wide and number:
            values[40:] += 300
            out += segment(0xDB, bytes([0x10 | number]) + values.astype(">u2").tobytes())
        else:
            out += segment(0xDB, bytes([number]) + values.astype(np.uint8).tobytes())
    return out + huffman_table(0x00, DC) + huffman_table(0x10, AC)


JFIF = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
ADOBE = [segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform])) for transform in (0, 1, 2, 7)]
ODD = [
    segment(0xEE, b"Adobe\0\x64\0\0\0\0"),
    segment(0xE0, b"JFIF\0\7\7"),
    segment(0xE1, b"Exif\0\0MM\0*\0\0"),
    segment(0xE2, b"ICC_PROFILE\0\5\2nothing"),
    segment(0xFE, b"a comment\xff\xd9") + b"\xff\xff\xff",
    segment(0xED, b"Photoshop 3.0\0008BIM"),
]
FACTORS = [
    [(1, 1)] * 3, [(2, 1), (1, 1), (1, 1)], [(2, 2), (1, 1), (1, 1)], [(1, 2), (1, 1), (1, 1)],
    [(4, 1), (1, 1), (1, 1)], [(4, 2), (1, 1), (1, 1)], [(2, 2), (2, 1), (1, 2)], [(1, 1), (2, 2), (1, 1)],
    [(2, 2), (2, 2), (1, 1)], [(3, 1), (1, 1), (1, 1)], [(1, 4), (1, 1), (1, 1)], [(1, 1), (2, 1), (2, 1)],
]  # fmt: skip


def ours():
    shapes = itertools.cycle([(1, 1), (8, 8), (17, 9), (40, 3), (5, 33), (33, 31), (16, 16), (2, 2), (4, 4), (47, 20)])
    for number, factors in itertools.product(range(10), FACTORS):
        width, height = next(shapes)
        shape = Picture(width, height, factors)
        restart = (0, 0, 1, 3)[number % 4]
        head = b"\xff\xd8" + (JFIF if number % 3 else b"") + tables(number % 5 == 1)
        interval = segment(0xDD, struct.pack(">H", restart)) if restart else b""
        scans = {
            "whole": [[0, 1, 2]],
            "single": [[0], [1], [2]],
            "pairs": [[0], [2, 1]] if number % 2 else [[1], [0, 2]],
        }
        name, groups = list(scans.items())[number % 3]
        text = "".join(f"{h}{v}" for h, v in factors)
        label = f"{text}-{name}-{number}-{width}x{height}"
        if number in (4, 9):
            # Spectral selection: all DC, then AC in bands, component by component.
            body = shape.frame(0xC2) + interval + shape.scan([0, 1, 2], 0, 0, restart)
            for c, (start, end) in itertools.product((2, 0, 1), ((1, 5), (6, 63))):
                body += shape.scan([c], start, end, restart)
            yield f"bands-{label}", head + body + b"\xff\xd9"
            continue
        body = shape.frame(0xC0 if number % 2 else 0xC1) + interval
        body += b"".join(shape.scan(group, restart=restart) for group in groups)
        yield f"huffman-{label}", head + body + b"\xff\xd9"
        if number < 3:
            body = shape.frame(0xC9) + interval
            body += b"".join(shape.arithmetic_scan(group, restart=restart) for group in groups)
            yield f"arithmetic-{label}", head + body + b"\xff\xd9"
    yield from inks_and_segments()


def inks_and_segments():
    factors = [[(1, 1)] * 4, [(2, 2), (1, 1), (1, 1), (2, 2)], [(2, 1), (1, 1), (1, 1), (2, 1)]]
    for (number, adobe), four in itertools.product(enumerate([b"", *ADOBE]), factors):
        shape = Picture(21, 13, four)
        body = adobe + tables(False) + shape.frame(0xC0) + shape.scan([0, 1, 2, 3])
        yield f"inks-{number}-{four[0]}", b"\xff\xd8" + body + b"\xff\xd9"
    ids = [None, b"RGB", b"\0\1\2", b"\1\x22\x23", b"rgb", b"\1\2\4"]
    for number, (adobe, letters, jfif) in enumerate(itertools.product([b"", *ADOBE], ids, (b"", JFIF))):
        shape = Picture(19, 10, [(1, 1)] * 3, letters)
        body = jfif + adobe + tables(False) + shape.frame(0xC0) + shape.scan([0, 1, 2])
        yield f"colours-{number}", b"\xff\xd8" + body + b"\xff\xd9"
    for number, odd in enumerate(ODD):
        shape = Picture(20, 20, [(2, 2), (1, 1), (1, 1)])
        whole = tables(False) + shape.frame(0xC0) + shape.scan([0, 1, 2])
        yield f"odd-{number}", b"\xff\xd8" + odd + whole + b"\xff\xd9"
        yield f"odd-and-zeros-{number}", b"\xff\xd8" + odd + whole + bytes(9)
        yield f"odd-and-more-{number}", b"\xff\xd8" + odd + whole + b"\xff\xd9" + b"what follows\xff\xd8\xff"
        yield f"odd-and-junk-{number}", b"\xff\xd8" + odd + whole + b"junk\xff\xd9"
    shape = Picture(20, 20, [(1, 1)])
    # Some programs write zeros where a baseline scan has its first and last coefficient.
    scan = shape.scan([0]).replace(b"\0\x3f\0", b"\0\0\0", 1)
    yield "scan-of-zeros", b"\xff\xd8" + tables(False) + shape.frame(0xC0) + scan + b"\xff\xd9"


# ------------------------------------------------------------------------------------------------- the suite


def expectation(content):
    image = Image.open(io.BytesIO(content))
    image.load()
    return ImageOps.exif_transpose(image).convert("RGB")


def write_suite(folder, name, files, skips=False):
    """Writes NAME.bin and NAME.txt; what Pillow does not read is left out, or an error."""
    names, lines, whole = set(), [], b""
    for label, content in files:
        label = label.replace(" ", "")
        while label in names:
            label += "+"
        names.add(label)
        try:
            image = expectation(content)
        except Exception as reason:
            if skips:
                continue
            sys.exit(f"{label}: {reason}")
        lines.append(f"{label} {len(content)} {image.width} {image.height} {fnv1a(image.tobytes()):016x}")
        whole += content
    (folder / f"{name}.bin").write_bytes(whole)
    (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    print(f"{name}: {len(lines)} files, {len(whole)} bytes")


if __name__ == "__main__":
    assert PIL.__version__ == "12.0.0", f"Pillow 12.0.0 is the reference, this is {PIL.__version__}"
    write_suite(Path(sys.argv[1]), "jpeg", itertools.chain(pillows(), ours()))
