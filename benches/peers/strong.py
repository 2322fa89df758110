"""The strongest PyTorch that is easily had: static cache, media keys and values kept, torch.compile with CUDA graphs.

    python3 benches/peers/strong.py [MODEL ..]
"""
import sys

import torch
from flamingo import CONFIGS, StaticCache, build, kept, pixels, random_ids, seen
from timing import median, tell

TOKENS, PICTURES, SEQUENCES, ENCODED, SHOTS, SHOT_TOKENS = 512, 4, 16, 8, 8, 32
LENGTH = TOKENS + 64


def caches(model, batch):
    width = model.config["width"] // model.heads
    return [StaticCache(batch, model.heads, LENGTH, width) for _ in model.layers]


def projected(model, latents):
    return [tuple(kept(part.contiguous()) for part in pair) for pair in model.project(latents)]


def run(name):
    model = build(name)
    encode = torch.compile(lambda pictures: model.project(model.encode(pictures)), mode="reduce-overhead")
    text = torch.compile(model.text, mode="reduce-overhead")

    def decode(batch):
        own, positions = caches(model, batch), torch.tensor([TOKENS], device="cuda")
        for cache in own:
            cache.key.normal_(), cache.value.normal_()
        # Each sequence's token sees one picture: its keys and values, and no mask.
        media, ids = projected(model, model.encode(pixels(batch))), random_ids(model, batch, 1)
        return median(lambda: text(ids, positions, own, LENGTH, media))

    def prompt(tokens, pictures):
        own, positions = caches(model, 1), torch.arange(tokens, device="cuda")
        latents = model.encode(pixels(pictures)).flatten(0, 1)[None]
        media, ids, mask = projected(model, latents), random_ids(model, 1, tokens), seen(tokens, pictures)
        return median(lambda: text(ids, positions, own, LENGTH, media, mask))

    def encoded(count):
        pictures = pixels(count)
        return median(lambda: encode(pictures))

    for batch in (1, SEQUENCES):
        tell(f"{name}/decode{batch}at{TOKENS}", "strong", decode(batch))
    tell(f"{name}/prefill{TOKENS}", "strong", prompt(TOKENS, PICTURES))
    tell(f"{name}/encode{ENCODED}", "strong", encoded(ENCODED))
    shown = SHOTS + 1
    tell(f"{name}/first{SHOTS}shots", "strong", encoded(shown) + prompt(shown * SHOT_TOKENS, shown))


if __name__ == "__main__":
    torch.manual_seed(0)
    # One graph for each shape, and no more.
    torch._dynamo.config.automatic_dynamic_shapes = False
    torch._dynamo.config.cache_size_limit = 64
    with torch.no_grad():
        for name in sys.argv[1:] or CONFIGS:
            run(name)
            torch._dynamo.reset()
            torch.cuda.empty_cache()
