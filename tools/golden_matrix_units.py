"""Makes tests/data/matrix_units.txt: products of tiles as MMA-Sim computes them, bit by bit.

    git clone https://github.com/microsoft/MMA-Sim mma-sim
    git -C mma-sim checkout c78513835c8b2ae61b35062afce4c4255bc6901c
    python3 -m venv venv && venv/bin/pip install torch==2.11.0 numpy
    venv/bin/python tools/golden_matrix_units.py mma-sim tests/data/matrix_units.txt

MMA-Sim (MIT licence; Xie et al., arXiv 2511.10909) models the matrix units of GPUs. The instruction is mma.m16n8k16 with
f16 or bf16 operands and f32 sums, on "Hopper" (compute capability 9.0) and "Ampere" (8.0).

The file holds for each tile a line `TYPE NAME`, then lines of hexadecimal words: 16 of A (16 x 16, bits of TYPE), 16 of
B (16 x 8), 16 of C (16 x 8, bits of f32), 16 of D on Hopper, 16 of D on Ampere. Lines that begin with # are comments.
"""

import random
import struct
import sys
from pathlib import Path

import torch

M, N, K = 16, 8, 16
ARCHITECTURES = ("Hopper", "Ampere")
LARGEST = 0x7F7FFFFF
INFINITY = {"f16": 0x7C00, "bf16": 0x7F80}
NAN = {"f16": 0x7E00, "bf16": 0x7FC0}
FRACTION = {"f16": 10, "bf16": 7}
BIAS = {"f16": 15, "bf16": 127}
TYPES = {"f16": torch.float16, "bf16": torch.bfloat16}


def half(kind, value):
    """Bits of the nearest number."""
    return torch.tensor(value, dtype=torch.float64).to(TYPES[kind]).view(torch.int16).item() & 0xFFFF


def single(value):
    return struct.unpack("<I", struct.pack("<f", value))[0]


def power(kind, exponent, draw, signed=True):
    """A normal number of this exponent with a random fraction."""
    sign = draw.getrandbits(1) << 15 if signed else 0
    return sign | (exponent + BIAS[kind]) << FRACTION[kind] | draw.getrandbits(FRACTION[kind])


def single_power(exponent, draw):
    return draw.getrandbits(1) << 31 | (exponent + 127) << 23 | draw.getrandbits(23)


def filled(rows, columns, make):
    return [[make() for _ in range(columns)] for _ in range(rows)]


def normal(kind, draw):
    gauss = lambda: half(kind, draw.gauss(0, 1))
    return filled(M, K, gauss), filled(K, N, gauss), filled(M, N, lambda: single(draw.gauss(0, 1)))


def wide(kind, draw):
    """Exponents so far apart that most terms lose bits, and some all of them."""
    reach = 9 if kind == "f16" else 16
    word = lambda: power(kind, draw.randint(-reach, reach), draw)
    return filled(M, K, word), filled(K, N, word), filled(M, N, lambda: single_power(draw.randint(-reach, reach), draw))


def truncated(kind, draw):
    """One large term, and others just above and below the last bit that is kept beside it."""
    a = filled(M, K, lambda: power(kind, draw.choice((-12, -13, -14)), draw))
    b = filled(K, N, lambda: power(kind, draw.choice((-11, -12, -13)), draw))
    c = filled(M, N, lambda: single_power(draw.choice((-24, -25, 0, 1)), draw))
    for i in range(0, M, 2):
        a[i][draw.randrange(K)] = power(kind, 12, draw)
    return a, b, c


def cancelled(kind, draw):
    """Sums in which large products cancel, so that the small ones are what is left."""
    a = filled(M, K, lambda: power(kind, draw.randint(-3, 3), draw))
    b = filled(K, N, lambda: power(kind, draw.randint(-3, 3), draw))
    for k in range(0, K - 2, 2):
        b[k + 1] = list(b[k])
        for row in a:
            row[k + 1] = row[k] ^ 0x8000 ^ draw.choice((0, 0, 1))
    return a, b, filled(M, N, lambda: draw.choice((0, 0x80000000, single_power(-20, draw))))


def zeros(kind, draw):
    """Zeros times large numbers beside small products: the zeros may lift the exponent that all are aligned to."""
    large = 15 if kind == "f16" else 120
    a = filled(M, K, lambda: power(kind, draw.randint(-14, -10), draw))
    b = filled(K, N, lambda: power(kind, draw.randint(-14, -10), draw))
    for k in draw.sample(range(K), 5):
        for i in range(M):
            a[i][k] = draw.choice((0, 0x8000))
        b[k] = [power(kind, large, draw) for _ in range(N)]
    for i in range(4):
        a[i] = [draw.choice((0, 0x8000)) for _ in range(K)]
    return a, b, filled(M, N, lambda: draw.choice((0, 0x80000000, single_power(-24, draw), single_power(-120, draw))))


def subnormals(kind, draw):
    """Operands and accumulators below the least normal number."""
    fraction = FRACTION[kind]
    small = lambda: draw.getrandbits(1) << 15 | draw.getrandbits(fraction)
    partner = lambda: power(kind, draw.choice((-2, 0, 3)), draw)
    a, b = filled(M, K, small), filled(K, N, partner)
    for k in range(0, K, 3):
        b[k] = [small() for _ in range(N)]
    return a, b, filled(M, N, lambda: draw.getrandbits(1) << 31 | draw.getrandbits(23))


def least(kind, draw):
    """Sums about the least subnormal number of f32, where the type reaches that far."""
    low, high = (-14, -14) if kind == "f16" else (-77, -73)
    a = filled(M, K, lambda: power(kind, draw.randint(low, high), draw))
    b = filled(K, N, lambda: power(kind, draw.randint(low, high), draw))
    for i in range(0, M, 2):
        a[i] = [0] * K
        a[i][draw.randrange(K)] = power(kind, draw.randint(low, high), draw)
    return a, b, filled(M, N, lambda: draw.choice((0, 0x80000000, 1, 0x80000001, draw.getrandbits(23))))


def specials(kind, draw):
    a, b, c = normal(kind, draw)
    infinity, nan = INFINITY[kind], NAN[kind]
    for i in range(0, M, 2):
        a[i][draw.randrange(K)] = draw.choice((infinity, infinity | 0x8000, nan, nan | 0x8001))
    b[3][1], b[12][2], b[7][3], b[15][4] = infinity, infinity | 0x8000, nan, 0
    a[1][3] = a[3][12] = 0
    a[5] = [infinity] * K
    c[2][5], c[4][6], c[6][7], c[7][0] = 0x7F800000, 0xFF800000, 0x7FC00001, 0xFFFFFFFF
    return a, b, c


def overflows(kind, draw):
    """Sums near the largest number and beyond it; in the last rows the second half of k has an infinity."""
    top = 15 if kind == "f16" else 63
    a = filled(M, K, lambda: power(kind, draw.randint(top - 2, top), draw))
    b = filled(K, N, lambda: power(kind, draw.randint(top - 2, top), draw))
    c = filled(M, N, lambda: draw.choice((LARGEST, LARGEST | 1 << 31, single_power(127, draw), single_power(126, draw))))
    if kind == "bf16":
        # 2^103 is half of the last bit of the largest number, and 2^104 the whole of it.
        for i in range(8, M):
            exponents = {8: 40, 9: 41, 10: 39, 11: 40, 12: 41, 13: 40, 14: 40, 15: 41}
            a[i] = [0] * K
            a[i][0] = half(kind, 2.0 ** exponents[i])
            c[i] = [LARGEST] * N
        b[0] = [half(kind, 2.0**63)] * N
    for i, infinity in ((13, INFINITY[kind] | 0x8000), (14, INFINITY[kind]), (15, INFINITY[kind] | 0x8000)):
        a[i][12] = infinity
    b[12] = [half(kind, 1.0)] * N
    return a, b, c


def finite_bits(kind, draw):
    """Any numbers."""
    def word():
        while True:
            bits = draw.getrandbits(16)
            if bits & INFINITY[kind] != INFINITY[kind]:
                return bits

    def single_word():
        while True:
            bits = draw.getrandbits(32)
            if bits & 0x7F800000 != 0x7F800000:
                return bits

    return filled(M, K, word), filled(K, N, word), filled(M, N, single_word)


CASES = (normal, wide, truncated, cancelled, zeros, subnormals, least, specials, overflows, finite_bits)


def signed(value, bits):
    return value - (1 << bits) if value >> (bits - 1) else value


def tensor(rows, bits, kind):
    storage = torch.int16 if bits == 16 else torch.int32
    return torch.tensor([[signed(word, bits) for word in row] for row in rows], dtype=storage).view(kind)


def lines(rows, digits):
    return [" ".join(f"{word:0{digits}x}" for word in row) for row in rows]


def main(checkout, target):
    sys.path.insert(0, checkout)
    from mmasim.simulator.nv_ptx import mma

    draw = random.Random(11)
    text = ["# Made by tools/golden_matrix_units.py with MMA-Sim at c78513835c8b2ae61b35062afce4c4255bc6901c."]
    for kind in TYPES:
        for case in CASES:
            a, b, c = case(kind, draw)
            text.append(f"{kind} {case.__name__}")
            text += lines(a, 4) + lines(b, 4) + lines(c, 8)
            for architecture in ARCHITECTURES:
                unit = mma(architecture, f"m16n8k16.f32.{kind}.{kind}.f32")
                d = unit(tensor(a, 16, TYPES[kind]), tensor(b, 16, TYPES[kind]), tensor(c, 32, torch.float32))
                text += lines([[word & 0xFFFFFFFF for word in row] for row in d.view(torch.int32).tolist()], 8)
    Path(target).write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
