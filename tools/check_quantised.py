#!/usr/bin/env python3
"""Whether transformers, with the package compressed-tensors, reads what `flamant quantize` wrote as Flamant means it.

    check_quantised.py MODEL QUANTISED

MODEL is the folder that was quantised. Its matrices are replaced by what the codes of QUANTISED stand for, and the
logits of one text are compared with those of QUANTISED as the two packages open it, both in f32. Needs torch,
transformers 5, compressed-tensors and accelerate.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

TOKENS = 32
DIFFERENCE_MAX = 1e-4


def widened(tensors: dict[str, torch.Tensor], module: str) -> torch.Tensor | None:
    """What the codes of a module stand for; none where it has plain numbers."""
    if module + ".weight_scale" not in tensors:
        return None
    scale = tensors[module + ".weight_scale"].float()
    if module + ".weight_packed" in tensors:
        words = tensors[module + ".weight_packed"]
        codes = torch.stack([(words >> (4 * i)) & 15 for i in range(8)], dim=-1).flatten(1).float()
        zeros = torch.full_like(scale, 8)
        if module + ".weight_zero_point" in tensors:
            words = tensors[module + ".weight_zero_point"]
            zeros = torch.stack([(words >> (4 * i)) & 15 for i in range(8)], dim=1).flatten(0, 1).float()
            zeros = zeros[: scale.shape[0]]
        group = codes.shape[1] // scale.shape[1]
        repeat = lambda values: values.repeat_interleave(group, dim=1)
        return (codes - repeat(zeros)) * repeat(scale)
    return tensors[module + ".weight"].float() * scale


def logits(model: torch.nn.Module) -> torch.Tensor:
    side = model.config.vision_config.image_size
    pixels = torch.linspace(-1, 1, 3 * side * side).reshape(1, 1, 3, side, side)
    tokens = torch.arange(TOKENS)[None] % model.config.vocab_size
    seen = torch.ones(*tokens.shape, 1, dtype=torch.long)
    with torch.no_grad():
        return model(input_ids=tokens, pixel_values=pixels, image_attention_mask=seen).logits


def main() -> None:
    original, quantised = map(Path, sys.argv[1:])
    tensors = {}
    for file in sorted(quantised.glob("*.safetensors")):
        tensors |= load_file(file)
    expected = AutoModelForImageTextToText.from_pretrained(original, dtype=torch.float32).eval()
    replaced = 0
    for name, module in expected.named_modules():
        if isinstance(module, torch.nn.Linear):
            names = [known for known in (name, name.removeprefix("model."), "model." + name) if widened(tensors, known) is not None]
            if names:
                module.weight.data = widened(tensors, names[0])
                replaced += 1
    found = AutoModelForImageTextToText.from_pretrained(quantised, dtype=torch.float32).eval()
    difference = (logits(expected) - logits(found)).abs().max().item()
    print(f"{replaced} quantised matrices, largest difference of a logit {difference:.2g}")
    if replaced == 0 or not difference <= DIFFERENCE_MAX:
        sys.exit(f"{quantised}: expected logits within {DIFFERENCE_MAX} of those that its codes stand for")


main()
