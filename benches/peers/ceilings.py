"""What the card does at best, as JSON: `read` bytes a second, `matrix` operations a second (8192^3, bf16, random data),
`host` bytes a second from pinned memory.

    python3 benches/peers/ceilings.py ceilings.json
"""
import json
import sys

import torch
import triton
import triton.language as tl
from timing import median


@triton.jit
def read(x, sums, BLOCK: tl.constexpr, STEPS: tl.constexpr):
    """Adds up BLOCK * STEPS words and keeps the sum: nothing else is written."""
    start = tl.program_id(0).to(tl.int64) * BLOCK * STEPS
    total = tl.zeros((BLOCK,), tl.int32)
    for step in range(STEPS):
        total += tl.load(x + start + step * BLOCK + tl.arange(0, BLOCK))
    tl.store(sums + tl.program_id(0), tl.sum(total))


def read_rate():
    words = 2 << 30  # 8 GB
    x = torch.randint(0, 1 << 30, (words,), dtype=torch.int32, device="cuda")
    best = 0.0
    for block, steps in [(4096, 4), (4096, 16), (8192, 8)]:
        programs = words // (block * steps)
        sums = torch.empty(programs, dtype=torch.int32, device="cuda")
        seconds = median(lambda: read[(programs,)](x, sums, BLOCK=block, STEPS=steps, num_warps=8))
        best = max(best, 4 * words / seconds)
    floats = x.view(torch.float32)
    return max(best, 4 * words / median(lambda: floats.sum()))


def matrix_rate(size=8192):
    a, b = (torch.randn(size, size, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    return 2 * size**3 / median(lambda: a @ b)


def host_rate(size=1 << 30):
    source = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    target = torch.empty(size, dtype=torch.uint8, device="cuda")
    return size / median(lambda: target.copy_(source, non_blocking=True))


if __name__ == "__main__":
    rates = {"read": read_rate(), "matrix": matrix_rate(), "host": host_rate()}
    text = json.dumps(rates)
    print(text)
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w") as file:
            file.write(text)
