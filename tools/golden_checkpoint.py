"""Writes the PyTorch archives in tests/data/checkpoint, of which tests/formats/checkpoint.rs knows every number.

All tensors count 0, 1, 2, ... (modulo 128, so that bfloat16 holds them) in the order of their storage.
Run with torch 2: python3 tools/golden_checkpoint.py
"""

import argparse
import pathlib
from collections import OrderedDict

import torch

FOLDER = pathlib.Path(__file__).parent.parent / "tests" / "data" / "checkpoint"


def count(*shape, dtype=torch.float32):
    numbers = torch.arange(torch.Size(shape).numel()) % 128
    return numbers.to(dtype).reshape(shape)


def flat():
    state = OrderedDict(latents=count(2, 3), scalar=count(), empty=count(0, 4), steps=torch.tensor(7))
    state["half"] = count(3, dtype=torch.float16)
    state["bfloat"] = count(3, dtype=torch.bfloat16)
    state["parameter"] = torch.nn.Parameter(count(2, 2))
    return state


def views():
    base = count(4, 6)
    return {
        "base": base,
        "transposed": base.T,
        "row": base[2],
        "column": base[:, 1],
        "corner": base[1:3, 2:4],
        "permuted": count(2, 3, 4).permute(2, 0, 1),
        "strided_half": count(2, 3, dtype=torch.float16).T,
        "one_row": base[3:4].expand(1, 6),
        "expanded": torch.zeros(1).expand(1000),
    }


def training():
    model = torch.nn.Sequential(OrderedDict(perceiver=torch.nn.Linear(3, 2), head=torch.nn.Linear(2, 1)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[2, 5])
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    scheduler.step()
    for parameter in model.parameters():
        parameter.data = count(*parameter.shape)
    return {
        "epoch": 3,
        "model_state_dict": OrderedDict((f"module.{name}", value) for name, value in model.state_dict().items()),
        "optimizer_state_dict": optimizer.state_dict(),
        "lr_scheduler_state_dict": scheduler.state_dict(),
        "args": argparse.Namespace(model="tiny", lr=1e-3, dtype=torch.bfloat16, seeds={1, 2}, big=1 << 80),
        "rng": torch.get_rng_state()[:16].clone(),
    }


class Tower(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.class_embedding = torch.nn.Parameter(count(4, dtype=torch.float16))
        self.conv1 = torch.nn.Conv2d(3, 4, 2, bias=False).half()
        self.conv1.weight.data = count(4, 3, 2, 2, dtype=torch.float16)

    def forward(self, x):
        return self.conv1(x)


class Clip(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = Tower()
        self.logit_scale = torch.nn.Parameter(count())
        self.blocks = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
        for parameter in self.blocks.parameters():
            parameter.data = count(*parameter.shape)
        self.register_buffer("context_length", torch.tensor(77))

    def forward(self, x):
        return self.visual(x)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    torch.save(flat(), FOLDER / "flat.pt")
    torch.save(flat(), FOLDER / "protocol4.pt", pickle_protocol=4)
    torch.save(views(), FOLDER / "views.pt")
    torch.save(training(), FOLDER / "training.pt")
    torch.save(flat(), FOLDER / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(2, 2), FOLDER / "module.pt")
    torch.jit.save(torch.jit.script(Clip()), str(FOLDER / "torchscript.pt"))


if __name__ == "__main__":
    main()
