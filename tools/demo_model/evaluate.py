"""Measures a packaged model folder: its bfloat16 weights (computed in float32)
on its own test sheets, answers decoded greedily.

    python evaluate.py MODEL_FOLDER [--prompts 1024]

prints one JSON object.  Used by package.py for the tables of the model card.
"""
import argparse
import json
import os

import numpy as np
import torch
from PIL import Image
from transformers import IdeficsForVisionText2Text

from symbols import TILE
from train_language import CHUNK, FIRST, VOCAB, image_mask, test_episodes, tokens
from train_vision import CLIP_MEAN, CLIP_STD, Threads

ALPHABETS = ["armenian", "georgian", "tifinagh", "nko", "syllabics"]


def load(folder):
    model = IdeficsForVisionText2Text.from_pretrained(folder, dtype=torch.float32).eval()
    sheets = {}
    for s in json.load(open(os.path.join(folder, "symbols", "symbols.json")))["sheets"]:
        a = np.asarray(Image.open(os.path.join(folder, "symbols", s["file"])))
        assert a.dtype == np.uint8 and a.shape == (s["rows"] * TILE, s["columns"] * TILE)
        sheets[s["name"]] = a.reshape(s["rows"], TILE, s["columns"], TILE).transpose(0, 2, 1, 3)
    return model, sheets


def pixels(tiles):
    """Grey bytes -> normalised colour, as IdeficsImageProcessor does it."""
    x = torch.from_numpy(np.ascontiguousarray(tiles)).float().unsqueeze(-3) / 255
    return (x - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)


@torch.no_grad()
def features(model, sheet):
    """What the language layers see of each tile: it depends on nothing else in the prompt."""
    n, k = sheet.shape[:2]
    f = [model.model.perceiver_resampler(model.model.vision_model(pixel_values=pixels(b)).last_hidden_state)
         for b in np.array_split(sheet.reshape(n * k, TILE, TILE), 6)]
    return torch.cat(f).view(n, k, *f[0].shape[1:])


def pictures_of(feats, episodes):
    return torch.stack([feats[torch.as_tensor(r), torch.as_tensor(c)] for r, c, *_ in episodes])


@torch.no_grad()
def greedy(model, x, names):
    """Free-running answers: the last picture's name is not in the prompt."""
    ids = torch.tensor([tokens(n)[:-4] for n in names])
    for _ in range(3):
        ids = torch.cat([ids, step(model, x, ids)[:, -1:].argmax(-1)], 1)
    return ["".join(VOCAB[t] if t < len(VOCAB) else "?" for t in row) for row in ids[:, -3:].tolist()]


def step(model, x, ids):
    n, pictures = x.shape[:2]
    mask = image_mask(pictures)[:ids.shape[1]]
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), perceiver_embeddings=x,
                 image_attention_mask=mask[None].expand(n, -1, -1), use_cache=False).logits


@torch.no_grad()
def ranked(model, x, names, choices):
    """The likeliest of the choices as the last picture's name, for each prompt."""
    out, k = [], len(choices[0])
    ids = torch.tensor([tokens(n[:-1] + [c]) for n, cs in zip(names, choices) for c in cs])
    q = (x.shape[1] - 1) * CHUNK + FIRST
    logp = step(model, x.repeat_interleave(k, 0), ids)[:, q:q + 3].log_softmax(-1)
    score = logp.gather(-1, ids[:, q + 1:q + 4, None])[..., 0].sum(1).view(-1, k)
    return [cs[i] for cs, i in zip(choices, score.argmax(1).tolist())]


threads = Threads()


def batches(items, n=128):
    for a in range(0, len(items), n):
        threads.adapt()
        yield items[a:a + n]


def episodes(feats, ways, shown, n, seed):
    return list(test_episodes(np.random.default_rng(seed), *feats.shape[:2], ways, shown, n))


def accuracy(model, feats, ways, shown, n, seed=100):
    ok = 0
    for part in batches(episodes(feats, ways, shown, n, seed)):
        names = [e[2] for e in part]
        answers = greedy(model, pictures_of(feats, part), names)
        ok += sum(a == n[-1] for a, n in zip(answers, names))
    return ok / n


def ranking(model, feats, ways, shown, n, seed=100, unrelated=False):
    """Accuracy when only the prompt's names may be answered; with `unrelated`,
    the pictures shown are of symbols other than the ones named."""
    rng, ok = np.random.default_rng(seed + 1), 0
    for part in batches(episodes(feats, ways, shown, n, seed), 64):
        if unrelated:
            changed = []
            for rows, columns, names, choices in part:
                others = rng.choice(np.setdiff1d(np.arange(len(feats)), rows), ways, replace=False)
                stand_in = dict(zip(dict.fromkeys(rows.tolist()), others))
                changed.append((np.array([stand_in[r] for r in rows[:-1].tolist()] + [rows[-1]]), columns, names, choices))
            part = changed
        names = [e[2] for e in part]
        answers = ranked(model, pictures_of(feats, part), names, [e[3] for e in part])
        ok += sum(a == n[-1] for a, n in zip(answers, names))
    return ok / n


def swapped(model, feats, ways, shown, n, seed=200):
    """Two names change places in the prompt, the asked symbol's among them.
    Returns how often the answer is then the other name: of all prompts, and of
    those answered rightly before."""
    rng, right, follow, both = np.random.default_rng(seed + 1), 0, 0, 0
    for part in batches(episodes(feats, ways, shown, n, seed)):
        x, names = pictures_of(feats, part), [e[2] for e in part]
        before = greedy(model, x, names)
        after_names, others = [], []
        for e in part:
            shown_names = [m for m in dict.fromkeys(e[2][:-1]) if m != e[2][-1]]
            other = shown_names[rng.integers(len(shown_names))]
            change = {e[2][-1]: other, other: e[2][-1]}
            after_names.append([change.get(m, m) for m in e[2]])
            others.append(other)
        after = greedy(model, x, after_names)
        for b, a, n_, o in zip(before, after, names, others):
            right += b == n_[-1]
            follow += a == o
            both += b == n_[-1] and a == o
    return follow / n, both / max(1, right)


def evaluate(folder, n):
    model, sheets = load(folder)
    feats = {k: features(model, v) for k, v in sheets.items()}
    mean = lambda d: sum(d[a] for a in ALPHABETS) / len(ALPHABETS)
    out = {"prompts": n, "ways": {}, "shots": {}, "unrelated": {}, "swapped": {}}
    for ways in (2, 3, 5, 8):
        out["ways"][ways] = {k: accuracy(model, f, ways, max(5, ways), n) for k, f in feats.items()}
        out["ways"][ways]["mean"] = mean(out["ways"][ways])
    few = max(64, n // 4)
    for shown in (0, 1, 2, 4, 8, 16):
        g = {k: accuracy(model, feats[k], 5, shown, few) for k in ALPHABETS}
        r = {k: ranking(model, feats[k], 5, shown, few) for k in ALPHABETS}
        out["shots"][shown] = {"greedy": mean(g), "ranked": mean(r)}
    for ways in (2, 5):
        u = {k: ranking(model, feats[k], ways, 5, few, unrelated=True) for k in ALPHABETS}
        out["unrelated"][ways] = {**u, "mean": mean(u)}
        s = {k: swapped(model, feats[k], ways, 5, few) for k in ALPHABETS}
        out["swapped"][ways] = {"all": mean({k: v[0] for k, v in s.items()}),
                                "right_before": mean({k: v[1] for k, v in s.items()}),
                                **{k: v[1] for k, v in s.items()}}
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--prompts", type=int, default=1024)
    args = parser.parse_args()
    print(json.dumps(evaluate(args.folder, args.prompts), indent=1))
