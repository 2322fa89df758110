"""Stage 1: trains the vision tower to tell symbols apart, before any language.

Two drawings of one symbol are a pair; all the others in the batch are not
(a symmetric contrastive loss).  Half of a batch's symbols come in runs of one
alphabet, or of one family of made-up look-alikes, so that near misses count.

    python train_vision.py --work WORK --minutes 25

reads WORK/bank.npz and WORK/sheets.npz, writes WORK/vision.pt now and then.
The tower's parameters have the names of transformers' IdeficsVisionTransformer.
"""
import argparse
import json
import math
import os
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from symbols import DENSE, TILE

DIM, LAYERS, HEADS, PATCH, PROJ = 128, 4, 4, 8, 64
GRID = TILE // PATCH
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.qkv, self.out_proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.fc1, self.fc2 = nn.Linear(DIM, 4 * DIM), nn.Linear(4 * DIM, DIM)

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = self.qkv(self.layer_norm1(x)).view(n, t, 3, HEADS, DIM // HEADS).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out_proj(a.transpose(1, 2).reshape(n, t, DIM))
        return x + self.fc2(F.gelu(self.fc1(self.layer_norm2(x))))


class Tower(nn.Module):
    """The CLIP vision tower of IDEFICS, for grey pictures in [0, 1]: the patch
    embedding is a matrix over grey pixels, spread over three normalised colour
    channels by `idefics_state`."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Linear(PATCH * PATCH, DIM, bias=False)
        self.cls = nn.Parameter(torch.randn(DIM) * .02)
        self.pos = nn.Parameter(torch.randn(GRID * GRID + 1, DIM) * .1)
        self.pre, self.post = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.proj = nn.Linear(DIM, PROJ, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(2.5))

    def forward(self, grey):                     # n, TILE, TILE -> n, 1 + patches, DIM
        n = len(grey)
        p = grey.view(n, GRID, PATCH, GRID, PATCH).transpose(2, 3).reshape(n, GRID * GRID, PATCH * PATCH)
        x = torch.cat([self.cls.expand(n, 1, DIM), self.patch(p)], 1) + self.pos
        x = self.pre(x)
        for layer in self.layers:
            x = layer(x)
        return x

    def embed(self, grey):
        h = F.layer_norm(self(grey)[:, 1:], (DIM,)).mean(1)
        return F.normalize(self.proj(h), dim=-1)

    def idefics_state(self):
        """The same tower under transformers' names, for three colour channels."""
        w = self.patch.weight.view(DIM, PATCH, PATCH)
        mean, std = torch.tensor(CLIP_MEAN), torch.tensor(CLIP_STD)
        out = {"embeddings.patch_embedding.weight": w[:, None] * (std / 3).view(1, 3, 1, 1)}
        pos = self.pos.clone()
        pos[1:] += w.sum((1, 2)) * mean.mean()
        out["embeddings.class_embedding"] = self.cls
        out["embeddings.position_embedding.weight"] = pos
        for name, norm in (("pre_layrnorm", self.pre), ("post_layernorm", self.post)):
            out[name + ".weight"], out[name + ".bias"] = norm.weight, norm.bias
        for i, l in enumerate(self.layers):
            pre = f"encoder.layers.{i}."
            for j, n in enumerate(("q_proj", "k_proj", "v_proj")):
                out[pre + f"self_attn.{n}.weight"] = l.qkv.weight[j * DIM:(j + 1) * DIM]
                out[pre + f"self_attn.{n}.bias"] = l.qkv.bias[j * DIM:(j + 1) * DIM]
            for n, m in (("self_attn.out_proj", l.out_proj), ("layer_norm1", l.layer_norm1),
                         ("layer_norm2", l.layer_norm2), ("mlp.fc1", l.fc1), ("mlp.fc2", l.fc2)):
                out[pre + n + ".weight"], out[pre + n + ".bias"] = m.weight, m.bias
        return {k: v.detach().clone().contiguous() for k, v in out.items()}


class Threads:
    """Takes one thread while other programs keep a core busy, else two: two
    threads that share a core with others wait for each other all the time."""

    def __init__(self):
        torch.set_num_threads(2)
        self.last = self.read()

    @staticmethod
    def read():
        user, nice, system = (int(x) for x in open("/proc/stat").readline().split()[1:4])
        t = os.times()
        return time.time(), (user + nice + system) / os.sysconf("SC_CLK_TCK"), t.user + t.system

    def adapt(self):
        now = self.read()
        if now[0] - self.last[0] < 3:
            return
        wall, busy, own = (a - b for a, b in zip(now, self.last))
        torch.set_num_threads(1 if (busy - own) / wall > .3 else 2)
        self.last = now


# ---------------------------------------------------------------- jittered drawings

_axis = (torch.arange(TILE) + .5) / TILE * 2 - 1


def jitter(base, rng):
    """n, BASE, BASE bytes -> n, TILE, TILE floats: thickness, warp, blur, noise."""
    n = len(base)
    x = torch.from_numpy(base).float()[:, None] / 255
    u = lambda a, b, *s: torch.from_numpy(rng.uniform(a, b, s).astype(np.float32))
    g = lambda s, *d: torch.from_numpy(rng.normal(0, s, d).astype(np.float32))
    how = torch.from_numpy(rng.integers(0, 14, n))
    for k, kernel in ((0, (3, 3)), (1, (1, 3)), (2, (3, 1)), (3, (1, 3))):     # bold; contrast of strokes
        i = how == k
        if i.any():
            x[i] = F.max_pool2d(x[i], kernel, 1, (kernel[0] // 2, kernel[1] // 2))
    i = how == 4                                                             # light, where some ink is left
    if i.any():
        thin = .25 * x[i] - .75 * F.max_pool2d(-x[i], 3, 1, 1)
        x[i] = torch.where((thin.sum((1, 2, 3)) > .4 * x[i].sum((1, 2, 3)))[:, None, None, None], thin, x[i])
    angle, shear = g(.16, n), g(.1, n)
    angle = torch.where(u(0, 1, n) < .1, angle * 1.8, angle)
    side = u(1.1, 1.65, n) / 1.6
    sx, sy = torch.exp(g(.09, n)) * side, torch.exp(g(.09, n)) * side
    c, s = angle.cos(), angle.sin()
    a = torch.stack([torch.stack([c * sx, -s * sy + shear * c * sy], -1),
                     torch.stack([s * sx, c * sy + shear * s * sy], -1)], 1)
    shift = u(-.07, .07, n, 2) * 2 * side[:, None]
    grid = torch.stack(torch.meshgrid(_axis, _axis, indexing="xy"), -1).view(-1, 2)
    grid = (grid @ a.transpose(1, 2) + shift[:, None]).view(n, TILE, TILE, 2)
    bend = g(1., n, 2, 4, 4) * (u(0, .05, n) * (u(0, 1, n) < .7))[:, None, None, None]
    grid = grid + F.interpolate(bend, size=(TILE, TILE), mode="bilinear", align_corners=True).permute(0, 2, 3, 1)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    blur = torch.where(u(0, 1, n) < .5, u(0, .32, n), u(0, .1, n))            # side weight of a 3-tap filter
    k = torch.stack([blur, 1 - 2 * blur, blur], -1)
    x = x[:, 0][None]
    x = F.conv2d(F.conv2d(x, k.view(n, 1, 3, 1), padding=(1, 0), groups=n), k.view(n, 1, 1, 3), padding=(0, 1), groups=n)
    x = x[0]
    i = torch.from_numpy(rng.random(n) < .06)                                # low resolution
    if i.any():
        x[i] = F.interpolate(F.avg_pool2d(x[i][:, None], 2), scale_factor=2, mode="bilinear")[:, 0]
    return (x * u(.75, 1.05, n)[:, None, None]).clamp(0, 1)


class Bank:
    def __init__(self, work, seed):
        z = np.load(os.path.join(work, "bank.npz"))
        self.images, self.start, self.group, self.script = z["images"], z["start"], z["group"], z["script"]
        self.rng = np.random.default_rng(seed)
        self.members = [m for m in (np.flatnonzero(self.group == g) for g in range(self.group.max() + 1)) if len(m)]
        made_up = np.array([self.script[m[0]] == "made-up" for m in self.members])
        dense = np.array([self.script[m[0]] in DENSE for m in self.members])
        w = np.array([len(m) for m in self.members], float) * np.where(dense, .4, 1)
        w[made_up] *= .35 * w[~made_up].sum() / (.65 * w[made_up].sum())
        self.weight = w / w.sum()
        self.symbol_weight = np.zeros(len(self.group))
        for m, x in zip(self.members, self.weight):
            self.symbol_weight[m] = x / len(m)

    def draw(self, symbols):
        a, b = self.start[symbols], self.start[symbols + 1]
        return self.images[a + (self.rng.random(len(symbols)) * (b - a)).astype(int)]

    def batch(self, n, run=16):
        out = []
        while len(out) < n // 2:
            m = self.members[self.rng.choice(len(self.members), p=self.weight)]
            out += list(self.rng.choice(m, min(run, len(m)), replace=False))
        out += list(self.rng.choice(len(self.group), n, p=self.symbol_weight, replace=False))
        return np.array(list(dict.fromkeys(out))[:n])


@torch.no_grad()
def nearest(embed, sheet, ways, trials=600):
    """Share of trials in which a drawing is nearest to another of the same symbol among `ways`."""
    n, k = sheet.shape[:2]
    e = torch.cat([embed(torch.from_numpy(b).float() / 255) for b in np.array_split(sheet.reshape(n * k, TILE, TILE), 4)])
    e, r, ok = e.numpy().reshape(n, k, -1), np.random.default_rng(1), 0
    for _ in range(trials):
        c, cols = r.choice(n, ways, replace=False), r.integers(k, size=ways)
        q = (cols[0] + r.integers(1, k)) % k
        ok += (e[c, cols] @ e[c[0], q]).argmax() == 0
    return ok / trials


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    args = parser.parse_args()
    torch.manual_seed(0)
    bank = Bank(args.work, 0 if not args.resume else 1)
    sheets = dict(np.load(os.path.join(args.work, "sheets.npz")))
    tower = Tower()
    if args.resume:
        tower.load_state_dict(torch.load(os.path.join(args.work, "vision.pt")))
    threads = Threads()
    decay = [p for p in tower.parameters() if p.ndim == 2]
    rest = [p for p in tower.parameters() if p.ndim != 2]
    opt = torch.optim.AdamW([{"params": decay, "weight_decay": .05}, {"params": rest, "weight_decay": 0}],
                            lr=args.lr, betas=(.9, .98))
    start, total, step, log, losses = time.time(), args.minutes * 60, 0, time.time(), []
    while True:
        done = (time.time() - start) / total
        if done >= 1:
            break
        rate = args.lr * min(1, (step + 1) / 150) * max(.01, .5 * (1 + math.cos(math.pi * done)))
        for g in opt.param_groups:
            g["lr"] = rate
        s = bank.batch(args.batch)
        x = torch.cat([jitter(bank.draw(s), bank.rng), jitter(bank.draw(s), bank.rng)])
        with torch.autocast("cpu", torch.bfloat16):
            e = tower.embed(x)
        e = e.float()
        a, b = e[:len(s)], e[len(s):]
        logits, y = a @ b.T * tower.log_scale.exp(), torch.arange(len(s))
        loss = (F.cross_entropy(logits, y) + F.cross_entropy(logits.T, y)) / 2
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(tower.parameters(), 1.)
        opt.step()
        losses.append(loss.item())
        step += 1
        threads.adapt()
        if step % 50 == 0:
            scores = ""
            if step % 400 == 0:
                torch.save(tower.state_dict(), os.path.join(args.work, "vision.tmp"))
                os.replace(os.path.join(args.work, "vision.tmp"), os.path.join(args.work, "vision.pt"))
                scores = " ".join(f"{k} {nearest(tower.embed, v, 5):.3f}" for k, v in sheets.items())
            print(step, f"loss {np.mean(losses[-50:]):.3f}", f"{(time.time() - log) / 50 * 1e3:.0f} ms/step",
                  f"{time.time() - start:.0f} s", torch.get_num_threads(), scores, flush=True)
            log = time.time()
    torch.save(tower.state_dict(), os.path.join(args.work, "vision.pt"))
    scores = {k: nearest(tower.embed, v, 5) for k, v in sheets.items()}
    print("final", step, scores, "scale", tower.log_scale.exp().item(), flush=True)
    json.dump({"steps": step, "minutes": round((time.time() - start) / 60, 1), "batch": args.batch, "nearest_5_ways": scores},
              open(os.path.join(args.work, "vision.json"), "w"))


if __name__ == "__main__":
    main()
