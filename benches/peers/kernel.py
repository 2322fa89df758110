"""Single operations of PyTorch at the shapes of our table of cases: cuBLAS with its epilogue in further operations, each
backend of scaled_dot_product_attention, flex_attention, the norms.

    python3 benches/peers/kernel.py cases.jsonl      # lines of the bench `ops`: name, bytes
"""
import functools
import json
import re
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from timing import copies, replayed, tell

BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
ACTIVATIONS = {
    "gelu": F.gelu,
    "gelutanh": functools.partial(F.gelu, approximate="tanh"),
    "quickgelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "squaredrelu": lambda x: F.relu(x).square(),
    "silu": F.silu,
}
flex = torch.compile(flex_attention, dynamic=False)


def numbers(*shape):
    return torch.randn(shape, dtype=torch.bfloat16, device="cuda")


def weights(rows, columns):
    return numbers(rows, columns) / columns**0.5


def linear(count, columns, width, flags):
    """(peers, one set of buffers): every peer is called with a set."""
    rows = 2 * width if "paired" in flags else width
    activation = next((ACTIVATIONS[flag] for flag in flags if flag in ACTIVATIONS), None)
    gated = any(flag.startswith("gate-") for flag in flags)

    def make():
        return (
            numbers(count, columns),
            weights(rows, columns),
            numbers(rows) if "bias" in flags else None,
            numbers(width),
            numbers(count, width) if "residual" in flags else None,
        )

    def separate(x, weight, bias, gate, residual):
        y = F.linear(x, weight, bias)
        if "paired" in flags:
            first, second = y.chunk(2, -1)
            y = activation(first) * second
        elif activation:
            y = activation(y)
        y = y.clamp(-6.0, 6.0) if "clip" in flags else y
        if gated:
            return torch.addcmul(residual, y, gate)
        return y if residual is None else y + residual

    peers = {"cublas": separate}
    if flags == ["residual"]:
        peers["cublas addmm"] = lambda x, weight, bias, gate, residual: torch.addmm(residual, x, weight.t())
    return peers, make


def attention(queries, keys, batch, heads, width, mask=None, causal=False, score_mod=None, block_mask=None, prepare=None):
    def make():
        # Rows of all heads side by side, as a projection leaves them.
        q = numbers(batch, queries, heads, width).transpose(1, 2)
        k, v = numbers(batch, keys, 2, heads, width).unbind(2)
        return q, k.transpose(1, 2), v.transpose(1, 2)

    def backend(which, q, k, v):
        if prepare:
            q, k, v = prepare(q, k, v)
        with sdpa_kernel(which):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)

    peers = {name: functools.partial(backend, which) for name, which in BACKENDS.items()}
    if score_mod or block_mask is not None:
        peers["flex"] = lambda q, k, v: flex(q, k, v, score_mod=score_mod, block_mask=block_mask)
    return peers, make


def causal_attention(kind, count, before, heads, width, order):
    """`before`: tokens that are there already (chunk), or all of them (decode). Rotary embedding and append are left out."""
    batch, queries, keys = {"prefill": (1, count, count), "chunk": (1, count, before + count), "decode": (count, 1, before)}[kind]
    row = torch.arange(keys - queries, keys, device="cuda")[:, None]
    column = torch.arange(keys, device="cuda")[None]
    slopes = torch.exp2(-8.0 * torch.arange(1, heads + 1, device="cuda") / heads)
    mask, score_mod, block_mask = None, None, None
    if order == "alibi":
        bias = slopes[:, None, None] * (column - row)
        mask = bias.masked_fill(column > row, float("-inf")).to(torch.bfloat16)[None]
        if queries > 1:
            offset = keys - queries

            def score_mod(score, b, h, q, k):
                return score + slopes[h] * (k - q - offset)
    elif kind == "chunk":
        mask = column <= row
    if queries > 1:
        block_mask = create_block_mask(lambda b, h, q, k: k <= q + keys - queries, None, None, queries, keys, device="cuda")
    return attention(queries, keys, batch, heads, width, mask, kind == "prefill" and mask is None, score_mod, block_mask)


def masked_attention(count, pictures, latents, heads, width, normed):
    """What a token sees is told by a dense mask, or to flex_attention by a rule."""
    seen = torch.arange(count, device="cuda") * pictures // count
    mask = seen[:, None] == (torch.arange(pictures * latents, device="cuda") // latents)[None]
    keys = pictures * latents
    rule = create_block_mask(lambda b, h, q, k: seen[q] == k // latents, None, None, count, keys, device="cuda") if count > 16 else None
    weight = numbers(width)
    prepare = (lambda q, k, v: (F.rms_norm(q, (width,), weight), k, v)) if normed else None
    return attention(count, keys, 1, heads, width, mask, block_mask=rule, prepare=prepare)


def perceiver(pictures, queries, sources, heads, width, normed):
    weight, bias = numbers(width), numbers(width)

    def make():
        q = numbers(pictures, queries, heads, width).transpose(1, 2)
        return (q, *(numbers(pictures, rows, 2, heads, width) for rows in sources))

    def backend(which, q, *parts):
        k, v = (part.transpose(1, 2) for part in torch.cat(parts, 1).unbind(2))
        if normed:
            q, k = (F.layer_norm(x, (width,), weight, bias) for x in (q, k))
        with sdpa_kernel(which):
            return F.scaled_dot_product_attention(q, k, v)

    return {name: functools.partial(backend, which) for name, which in BACKENDS.items()}, make


def norm(kind, bias, shape):
    group = shape[-1]

    def make():
        return numbers(*shape), numbers(group), numbers(group) if bias else None

    def run(x, weight, bias):
        return F.layer_norm(x, (group,), weight, bias) if kind == "layer" else F.rms_norm(x, (group,), weight)

    return {"torch": run}, make


def gated(family, count, width, pictures, latents, heads, head_width):
    inner = heads * head_width
    seen = torch.arange(count, device="cuda") * pictures // count
    mask = seen[:, None] == (torch.arange(pictures * latents, device="cuda") // latents)[None]

    def make():
        media = (numbers(1, pictures * latents, heads, head_width).transpose(1, 2) for _ in range(2))
        return (numbers(count, width), numbers(width), weights(inner, width), weights(width, inner), numbers(1), *media)

    def run(x, weight, to_query, to_out, gate, k, v):
        y = F.rms_norm(x, (width,), weight) if family == "idefics" else F.layer_norm(x, (width,), weight, weight)
        q = F.linear(y, to_query).view(1, count, heads, head_width).transpose(1, 2)
        if family == "idefics":
            q = F.rms_norm(q, (head_width,), weight[:head_width])
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return torch.addcmul(x, F.linear(y.transpose(1, 2).reshape(count, inner), to_out), torch.tanh(gate))

    return {"torch": run}, make


def gather(count, width):
    def make():
        return torch.randint(0, 32000, (count,), device="cuda"), numbers(32000, width)

    return {"torch": F.embedding}, make


def peers_of(name):
    """(peers, buffers) of a case; none where PyTorch has no one operation for it."""
    parts = name.split("/")
    counts = [[int(word) for word in re.findall(r"\d+", part)] for part in parts]
    match parts[0]:
        case "linear":
            shape, *flags = parts[1].split("+")
            return linear(*(int(word) for word in shape.split("x")), flags)
        case "vision":
            return attention(counts[1][1], counts[1][1], counts[1][0], *counts[2])
        case "perceiver":
            return perceiver(*counts[1][:2], counts[1][2:], *counts[2], "normed" in parts)
        case "causal":
            kind = re.match(r"[a-z]+", parts[2])[0]
            count, before = (counts[2] + [0])[:2]
            return causal_attention(kind, count, before, *counts[3], parts[4])
        case "masked":
            return masked_attention(*counts[1], *counts[2], "normed" in parts)
        case "norm":
            return norm(parts[1].split("+")[0], "+bias" in parts[1], counts[2])
        case "norm_heads":
            return norm(parts[1], parts[1] == "layer", counts[2])
        case "gated":
            return gated(parts[1].lower(), *counts[2], *counts[3])
        case "gather" if len(parts) == 2:
            return gather(*counts[1])
    return None


def main():
    torch.manual_seed(0)
    with open(sys.argv[1]) as file:
        cases = [json.loads(line) for line in file]
    with torch.no_grad():
        for case in cases:
            found = peers_of(case["name"])
            if found is None:
                continue
            peers, make = found
            sets = [make() for _ in range(copies(case["bytes"]))]
            for peer, run in peers.items():
                try:
                    tell(case["name"], peer, replayed(run, sets))
                except (RuntimeError, NotImplementedError) as error:  # a backend that does not serve the shape
                    print(f"{case['name']}: {peer}: {str(error).splitlines()[0]}", file=sys.stderr)
                    torch.cuda.synchronize()
            del sets
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
