"""Stage 2: trains the resampler, the gated blocks and the language layers to
name a picture by the pictures and names before it in the prompt.

A prompt is `<s>`, then for each picture `<fake><image><fake>` and its name,
three letters and a full stop.  Names are made up anew in every prompt and
given to symbols at random, so that nothing but the prompt tells which name
belongs to which symbol.  The loss counts the letters of names whose symbol was
shown earlier in the prompt, and no others: these alone are knowable.

    python train_language.py --work WORK --minutes 35
    python train_language.py --work WORK --minutes 15 --resume --end-to-end

reads WORK/bank.npz, WORK/sheets.npz, WORK/vision.pt; writes WORK/language.pt.
The vision tower is frozen (its features of six drawings a symbol are computed
once); with --end-to-end it is trained along, at a lower rate.
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
from transformers import IdeficsConfig, IdeficsForVisionText2Text

from symbols import TILE
from train_vision import DIM, GRID, HEADS, LAYERS, PATCH, PROJ, Bank, Threads, Tower, jitter

LETTERS = "abcdefghijklmnopqrstuvwxyz"
CONSONANTS, VOWELS = "bcdfghjklmnpqrstvwxz", "aeiou"
VOCAB = ["<unk>", "<s>", "</s>", "."] + list(LETTERS)
TOKEN = {c: i for i, c in enumerate(VOCAB)}
FAKE, IMAGE = len(VOCAB), len(VOCAB) + 1
CHUNK = 7                                     # fake, image, fake, three letters, full stop
FIRST = 3                                     # place of the first letter in a chunk
DRAWINGS = 6


def config():
    return IdeficsConfig(
        vocab_size=len(VOCAB), additional_vocab_size=2, hidden_size=DIM, intermediate_size=256,
        num_hidden_layers=3, num_attention_heads=4, cross_layer_interval=1, qk_layer_norms=True,
        alpha_initializer="ones", alpha_type="float", use_resampler=True, freeze_text_layers=False,
        freeze_vision_layers=False, pad_token_id=0, bos_token_id=1, eos_token_id=2, max_position_embeddings=1024,
        tie_word_embeddings=False,
        vision_config=dict(embed_dim=DIM, image_size=TILE, intermediate_size=4 * DIM, patch_size=PATCH,
                           num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_channels=3, hidden_act="gelu"),
        perceiver_config=dict(use_resampler=True, resampler_n_latents=4, resampler_depth=1, resampler_n_heads=4,
                              resampler_head_dim=32, qk_layer_norms_perceiver=False))


def new_model(tower):
    """Begins with copying made easy: without this it stays at chance for an hour."""
    model = IdeficsForVisionText2Text(config())
    m = model.model
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "vision_model" not in name and name.endswith("weight") and p.ndim == 2:
                half = any(s in name for s in ("o_proj", "down_proj", "c_proj", "output_proj"))
                p.copy_(torch.randn_like(p) / p.shape[1] ** .5 * (.5 if half else 1))
        m.embed_tokens.weight.copy_(torch.randn_like(m.embed_tokens.weight) * .5)
        m.embed_tokens.additional_embedding.weight.copy_(torch.randn(2, DIM) * .5)
        for attention, _ in m.perceiver_resampler.blocks:      # pictures by their contrastive embedding,
            attention.v_proj.weight.zero_()                    # averaged over the patches
            attention.v_proj.weight[:PROJ] = tower.proj.weight * 2
            attention.output_proj.weight.copy_(torch.eye(DIM))
            attention.q_proj.weight.mul_(.1)
        m.perceiver_resampler.latents.mul_(.1)
        for block in m.gated_cross_attn_layers:                # open gates, passed on unchanged
            block.alpha_cross_attn.fill_(1.5)
            block.alpha_dense.fill_(.5)
            block.cross_attn.v_proj.weight.copy_(torch.eye(DIM))
            block.cross_attn.o_proj.weight.copy_(torch.eye(DIM))
        for layer in m.layers:                                 # attention by likeness
            layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
    return model


def image_mask(pictures):
    """Each token sees the last picture at or before it, and none before the first."""
    mask = torch.zeros(1 + pictures * CHUNK, pictures)
    for t in range(2, len(mask)):
        mask[t, (t - 2) // CHUNK] = 1
    return mask


def new_names(rng, k):
    names = {}
    while len(names) < k:
        if rng.random() < .85:
            name = CONSONANTS[rng.integers(20)] + VOWELS[rng.integers(5)] + CONSONANTS[rng.integers(20)]
        else:
            name = "".join(LETTERS[i] for i in rng.integers(26, size=3))
        names[name] = None
    return list(names)


def tokens(names):
    """Token ids of a prompt of pictures with these names, all of them spelt out."""
    ids = [TOKEN["<s>"]]
    for name in names:
        ids += [FAKE, IMAGE, FAKE] + [TOKEN[c] for c in name] + [TOKEN["."]]
    return ids


class Episodes:
    def __init__(self, bank, rng, later=.3):
        self.bank, self.rng, self.later = bank, rng, later

    def one(self, pictures, most_ways):
        """Symbols, a name for each picture, and which names are knowable."""
        rng, bank = self.rng, self.bank
        ways = int(rng.integers(2, most_ways + 1))
        if rng.random() < .6:
            m = bank.members[rng.choice(len(bank.members), p=bank.weight)]
            symbols = rng.choice(m, min(ways, len(m)), replace=False)
        else:
            symbols = np.unique(rng.choice(len(bank.group), ways, p=bank.symbol_weight))
            rng.shuffle(symbols)
        ways = len(symbols)
        if rng.random() < .6 and ways < pictures:
            shown = np.concatenate([np.arange(ways), rng.integers(ways, size=pictures - 1 - ways)])
            rng.shuffle(shown)
        else:
            shown = rng.integers(ways, size=pictures - 1)
        order = np.append(shown, shown[rng.integers(len(shown))])
        names = new_names(rng, ways)
        known = [c in order[:i] for i, c in enumerate(order)]
        return symbols[order], [names[c] for c in order], known

    def batch(self, n, pictures, most_ways=8):
        symbols = np.zeros((n, pictures), int)
        ids = np.zeros((n, 1 + pictures * CHUNK), int)
        weight = np.zeros(ids.shape, np.float32)
        for e in range(n):
            symbols[e], names, known = self.one(pictures, most_ways)
            ids[e] = tokens(names)
            # weight[t] is that of predicting token t + 1; token 0 is `<s>`, so
            # that column FIRST of this view predicts the first letter.
            w = weight[e, :-1].reshape(pictures, CHUNK)
            w[:, FIRST] = known
            w[:, FIRST + 1:FIRST + 3] = self.later * np.array(known)[:, None]
            w[:, FIRST + 3] = .05                               # the full stop
        return symbols, torch.from_numpy(ids), torch.from_numpy(weight)


def forward(model, features, ids):
    n, pictures = features.shape[:2]
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), image_encoder_embeddings=features,
                 image_attention_mask=image_mask(pictures)[None].expand(n, -1, -1), use_cache=False).logits


def test_episodes(rng, rows, columns, ways, shown, n):
    """Rows, columns and names of n test prompts, the last picture to be named:
    each of `ways` symbols shown as often as can be, then at random."""
    for _ in range(n):
        symbols = rng.choice(rows, ways, replace=False)
        order = np.concatenate([rng.permutation(ways)[:shown], rng.integers(ways, size=max(0, shown - ways))])
        rng.shuffle(order)
        order = np.append(order, rng.integers(ways))
        names = new_names(rng, ways)
        place = [rng.permutation(columns) for _ in range(ways)]
        used, column = [0] * ways, []
        for c in order:
            column.append(int(place[c][used[c] % columns]))
            used[c] += 1
        yield symbols[order], column, [names[c] for c in order], names


@torch.no_grad()
def sheet_features(tower, sheet):
    n, k = sheet.shape[:2]
    f = [tower(torch.from_numpy(b).float() / 255) for b in np.array_split(sheet.reshape(n * k, TILE, TILE), 4)]
    return torch.cat(f).view(n, k, 1 + GRID * GRID, DIM)


@torch.no_grad()
def accuracy(model, features, ways, shown, n, seed=7):
    """Share of prompts answered with all three letters right.  (All letters
    right under teacher forcing is all letters right in free greedy decoding.)"""
    rng = np.random.default_rng(seed)
    eps = list(test_episodes(rng, *features.shape[:2], ways, shown, n))
    ok = 0
    for a in range(0, n, 128):
        part = eps[a:a + 128]
        x = torch.stack([features[torch.as_tensor(r), torch.as_tensor(c)] for r, c, _, _ in part])
        ids = torch.tensor([tokens(names) for _, _, names, _ in part])
        q = shown * CHUNK + FIRST
        logits = forward(model, x, ids)[:, q:q + 3]
        ok += (logits.argmax(-1) == ids[:, q + 1:q + 4]).all(1).sum().item()
    return ok / n


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True)
    parser.add_argument("--minutes", type=float, default=35)
    parser.add_argument("--tokens", type=int, default=2600, help="tokens in a batch, about")
    parser.add_argument("--lr", type=float, default=1.2e-3)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--end-to-end", action="store_true")
    parser.add_argument("--out", default="language.pt")
    args = parser.parse_args()
    torch.manual_seed(1)
    threads = Threads()
    rng = np.random.default_rng(4 if args.resume else 3)
    bank = Bank(args.work, 2 + args.resume)
    episodes = Episodes(bank, rng, later=.7 if args.resume else .3)    # second and third letters: once the first is right
    sheets = dict(np.load(os.path.join(args.work, "sheets.npz")))
    tower = Tower()
    tower.load_state_dict(torch.load(os.path.join(args.work, "vision.pt")))
    model = new_model(tower)
    if args.resume:
        saved = torch.load(os.path.join(args.work, "language.pt"))
        tower.load_state_dict(saved["tower"])
        model.load_state_dict(saved["model"])
    start = time.time()
    if not args.end_to_end:
        cache = np.empty((len(bank.group), DRAWINGS, 1 + GRID * GRID, DIM), np.float16)
        with torch.no_grad():
            for a in range(0, len(cache), 64):
                s = np.repeat(np.arange(a, min(a + 64, len(cache))), DRAWINGS)
                with torch.autocast("cpu", torch.bfloat16):
                    f = tower(jitter(bank.draw(s), bank.rng))
                cache[a:a + 64] = f.float().view(-1, DRAWINGS, 1 + GRID * GRID, DIM).numpy()
                threads.adapt()
        print(f"features in {time.time() - start:.0f} s", flush=True)
    params = [p for n, p in model.named_parameters() if "vision_model" not in n]
    groups = [{"params": params, "lr": args.lr, "peak": args.lr, "weight_decay": .03}]
    if args.end_to_end:
        groups.append({"params": list(tower.parameters()), "lr": args.lr, "peak": args.lr * .4, "weight_decay": .03})
    opt = torch.optim.AdamW(groups, betas=(.9, .98))
    test = {k: sheet_features(tower, v) for k, v in sheets.items()}

    def save():
        tmp = os.path.join(args.work, "language.tmp")
        torch.save({"tower": tower.state_dict(), "model": model.state_dict(), "steps": step,
                    "minutes": (time.time() - start) / 60}, tmp)
        os.replace(tmp, os.path.join(args.work, args.out))

    total, step, log, losses = args.minutes * 60, 0, time.time(), []
    while (done := (time.time() - start) / total) < 1:
        for g in opt.param_groups:
            g["lr"] = g["peak"] * min(1, (step + 1) / 200) * max(.01, .5 * (1 + math.cos(math.pi * done)))
        if step < 700 and not args.resume:      # short prompts until copying has been learnt
            pictures, most = 6, 5
        else:
            p = [.02, .04, .1, .26, .14, .2, .1, .14] if args.resume else [.03, .06, .15, .26, .15, .15, .1, .1]
            pictures = int(rng.choice([2, 3, 5, 6, 7, 9, 12, 17], p=p))
            most = 8
        symbols, ids, weight = episodes.batch(round(args.tokens / (1 + pictures * CHUNK)), pictures, most)
        if args.end_to_end:
            x = jitter(bank.draw(symbols.ravel()), bank.rng)
            with torch.autocast("cpu", torch.bfloat16):
                x = tower(x)
            x = x.float().view(*symbols.shape, 1 + GRID * GRID, DIM)
        else:
            x = torch.from_numpy(cache[symbols, rng.integers(DRAWINGS, size=symbols.shape)]).float()
        with torch.autocast("cpu", torch.bfloat16, enabled=done < .7):   # faster; float32 to finish
            logits = forward(model, x, ids)[:, :-1]
        loss = F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none").view(len(ids), -1)
        loss = (loss * weight[:, :-1]).sum() / weight.sum()
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for g in opt.param_groups for p in g["params"]], 1.)
        opt.step()
        losses.append(loss.item())
        step += 1
        threads.adapt()
        if step % 100 == 0:
            scores = ""
            if step % 400 == 0:
                save()
                if args.end_to_end:
                    test = {k: sheet_features(tower, v) for k, v in sheets.items()}
                model.eval()
                scores = " ".join(f"{k} {accuracy(model, v, 2, 5, 128):.2f}/{accuracy(model, v, 5, 5, 256):.3f}"
                                  for k, v in test.items())
                model.train()
            print(step, f"loss {np.mean(losses[-100:]):.4f}", f"{(time.time() - log) * 10:.0f} ms/step",
                  f"{time.time() - start:.0f} s", torch.get_num_threads(), scores, flush=True)
            log = time.time()
    save()
    model.eval()
    test = {k: sheet_features(tower, v) for k, v in sheets.items()}
    print("final", step, {k: (accuracy(model, v, 2, 5, 512), accuracy(model, v, 5, 5, 512)) for k, v in test.items()}, flush=True)
    path = os.path.join(args.work, "language.json")
    stages = json.load(open(path)) if args.resume and os.path.exists(path) else []
    stages.append({"steps": step, "minutes": round((time.time() - start) / 60, 1), "end_to_end": args.end_to_end})
    json.dump(stages, open(path, "w"))


if __name__ == "__main__":
    main()
