"""Our Python package: `generate` of 256 prompts, and 64 requests at a time as threads and as asyncio tasks, on the model in
the package. `benches/serve.sh` runs it beside `cargo bench --bench serve -- python`, the same prompts in Rust.

Prints a line of JSON for each figure.
"""
import asyncio
import json
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor

import flamant

ROUNDS = 3


def prompts(series, count, letters=4, shots=5, side=32):
    """Shots in common, then an image of its own."""
    def part(number):
        source = random.Random(number)
        image = memoryview(source.randbytes(side * side * 3)).cast("B", (side, side, 3))
        return [image, "".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=letters))]

    common = [item for shot in range(shots) for item in part(1_000_000 * (series + 1) + shot)]
    return [[*common, *part(number)] for number in range(series * 10_000, series * 10_000 + count)]


def told(name, rates):
    print(json.dumps({"name": name, "per_second": sorted(rates)[len(rates) // 2]}), flush=True)


def generate(engine, series):
    batch = prompts(series, 256)
    begun = time.perf_counter()
    answers = engine.generate(batch, max_new_tokens=64, ignore_eos=True)
    assert len(answers) == 256
    return 256 / (time.perf_counter() - begun)


def threads(engine, series):
    batch = prompts(series, 64)
    begun = time.perf_counter()
    with ThreadPoolExecutor(64) as pool:
        read = lambda prompt: sum(1 for _ in engine.submit(prompt, max_new_tokens=200, ignore_eos=True))
        assert sum(pool.map(read, batch)) == 64 * 200
    return 64 / (time.perf_counter() - begun)


async def tasks(engine, series):
    async def read(prompt):
        return sum([1 async for _ in engine.submit(prompt, max_new_tokens=200, ignore_eos=True)])

    batch = prompts(series, 64)
    begun = time.perf_counter()
    assert sum(await asyncio.gather(*map(read, batch))) == 64 * 200
    return 64 / (time.perf_counter() - begun)


with flamant.Engine() as engine:
    series = iter(range(os.getpid(), os.getpid() + 1000))
    told("python generate 256", [generate(engine, next(series)) for _ in range(ROUNDS)])
    both = [(threads(engine, next(series)), asyncio.run(tasks(engine, next(series)))) for _ in range(ROUNDS)]
    told("python 64 threads", [pair[0] for pair in both])
    told("python 64 tasks", [pair[1] for pair in both])
