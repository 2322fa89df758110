"""The trained parts of OpenFlamingo 0.0.2, Otter and flamingo-mini, restated from their published code for a language
model and a CLIP tower of the installed transformers: none of the three can be installed beside a current one. Modules
have the names of OpenFlamingo; what the others call them is a matter of saving."""

import math

import torch
from torch import nn
from transformers import NoRepeatNGramLogitsProcessor

import golden_common as common


NGRAM = 2  # tokens of a run that does not occur twice


class SquaredReLU(nn.Module):
    def forward(self, x):
        return torch.relu(x) ** 2


ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "sqrelu": SquaredReLU}


def feed_forward(width, activation="gelu", factor=4):
    hidden = width * factor
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, hidden, bias=False),
        ACTIVATIONS[activation](),
        nn.Linear(hidden, width, bias=False),
    )


def attend(query, key, value, heads, mask=None):
    split = lambda x: x.unflatten(-1, (heads, -1)).transpose(-3, -2)
    query, key, value = split(query), split(key), split(value)
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.finfo(scores.dtype).max)
    return (scores.softmax(-1) @ value).transpose(-3, -2).flatten(-2)


class PerceiverAttention(nn.Module):
    def __init__(self, width, heads, head_width):
        super().__init__()
        self.heads, inner = heads, heads * head_width
        self.norm_media, self.norm_latents = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, x, latents):
        latents = self.norm_latents(latents)
        key, value = self.to_kv(torch.cat([self.norm_media(x), latents], -2)).chunk(2, -1)
        return self.to_out(attend(self.to_q(latents), key, value, self.heads))


class Resampler(nn.Module):
    """`frames` rows are added by a frame's place in its video; an image is frame 0."""

    def __init__(self, width, depth, latents, frames=None, heads=8, head_width=64, activation="gelu"):
        super().__init__()
        self.latents = nn.Parameter(torch.zeros(latents, width))
        self.frame_embs = nn.Parameter(torch.zeros(frames, width)) if frames else None
        layer = lambda: nn.ModuleList([PerceiverAttention(width, heads, head_width), feed_forward(width, activation)])
        self.layers = nn.ModuleList([layer() for _ in range(depth)])
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        """(frames, tokens, width) of one image or video to (latents, width)."""
        if self.frame_embs is not None:
            x = x + self.frame_embs[: len(x), None]
        x, latents = x.flatten(0, 1), self.latents
        for attention, ff in self.layers:
            latents = latents + attention(x, latents)
            latents = latents + ff(latents)
        return self.norm(latents)


class MaskedCrossAttention(nn.Module):
    def __init__(self, width, media_width, heads, head_width):
        super().__init__()
        self.heads, inner = heads, heads * head_width
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(media_width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, x, media, time):
        """x (rows, tokens, width), media (images, latents, width), time (rows, tokens): from 1, 0 none."""
        key, value = self.to_kv(media.flatten(0, 1)).chunk(2, -1)
        owner = torch.arange(1, len(media) + 1).repeat_interleave(media.shape[1])
        mask = time[:, None, :, None] == owner
        found = attend(self.to_q(self.norm(x)), key, value, self.heads, mask)
        return self.to_out(found.masked_fill((time == 0)[..., None], 0.0))


class GatedCrossAttentionBlock(nn.Module):
    def __init__(self, width, media_width, heads=8, head_width=64, activation="gelu"):
        super().__init__()
        self.attn = MaskedCrossAttention(width, media_width, heads, head_width)
        self.attn_gate = nn.Parameter(torch.zeros(1))
        self.ff = feed_forward(width, activation)
        self.ff_gate = nn.Parameter(torch.zeros(1))

    def forward(self, x, media, time):
        x = x + self.attn(x, media, time) * self.attn_gate.tanh()
        return x + self.ff(x) * self.ff_gate.tanh()


class Layer(nn.Module):
    """A layer of the language model with the block before it, as FlamingoLayer is one."""

    def __init__(self, block, layer):
        super().__init__()
        self.gated_cross_attn_layer, self.decoder_layer = block, layer
        self.seen = None

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("decoder_layer"), name)

    def forward(self, x, *arguments, **named):
        media, time = self.seen
        if self.gated_cross_attn_layer is not None and media is not None:
            x = self.gated_cross_attn_layer(x, media, time)
        return self.decoder_layer(x, *arguments, **named)


def text_time(ids, media, rule, prompt, new):
    """Which image each token sees, from 1; 0: none. `rule` is that of the prompt: "preceding" is `attend_previous`
    true, "following" false (GatedCrossAttentionBlock of open_flamingo 0.0.2 and Otter). Tokens after the prompt see
    the "last" image, or "none": text_time of a lone token in cached decoding."""
    marks = torch.isin(ids, torch.tensor(media))
    marks[:, prompt:] = False
    time = marks.cumsum(-1)
    if rule == "following":
        time[~marks] += 1
        time[time > marks.sum(-1, keepdim=True)] = 0
    if new == "none":
        time[:, prompt:] = 0
    return time


class Flamingo(nn.Module):
    """A tower, a resampler, blocks in a language model whose layers are in the list named `layers`."""

    def __init__(self, tower, perceiver, language, layers, blocks, media, rule, new, class_token=False):
        super().__init__()
        self.vision_encoder, self.perceiver, self.lang_encoder = tower, perceiver, language
        owner = language
        *path, last = layers.split(".")
        for name in path:
            owner = getattr(owner, name)
        wrapped = nn.ModuleList([Layer(blocks.get(i), layer) for i, layer in enumerate(getattr(owner, last))])
        setattr(owner, last, wrapped)
        self.wrapped, self.media, self.rule, self.new, self.class_token = [wrapped], media, rule, new, class_token

    def encode(self, pictures):
        """(frames, 3, side, side) each."""
        first = 0 if self.class_token else 1
        states = [self.vision_encoder(pixels).last_hidden_state[:, first:] for pixels in pictures]
        return torch.stack([self.perceiver(state) for state in states]) if pictures else None

    def forward(self, media, rows, prompt):
        ids = torch.tensor(rows)
        if media is None:  # nothing is seen, the dense half works all the same
            media = torch.zeros(1, *self.perceiver.latents.shape)
        time = text_time(ids, self.media, self.rule, prompt, self.new)
        for layer in self.wrapped[0]:
            layer.seen = media, time
        return self.lang_encoder(input_ids=ids, use_cache=False).logits


def expected_of(model, pictures, ids, forbidden, margin):
    """The body of expected.json, and that what is in the pictures matters; None where a choice is too close, or where
    greedy search repeats no run of tokens by itself."""
    model.eval()
    with torch.no_grad():
        media = model.encode(pictures)
    step = lambda rows: model(media, rows, len(ids))
    expected = common.expect(step, ids, forbidden, margin)
    if expected is not None:
        # Asked of the processor alone, which rounds to f32.
        found = common.search(step, ids, forbidden, 2e-3, processor=NoRepeatNGramLogitsProcessor(NGRAM))
        if found is None or margin <= 2e-3 and found[0] == expected["greedy"]:
            return None
        expected["no_repeat_ngram"] = {"size": NGRAM, "greedy": found[0], "beam3": found[1]}
    if expected is not None and pictures:
        with torch.no_grad():
            before, media = step([ids]), model.encode([video.flip(-1) for video in reversed(pictures)])
            moved = float((step([ids]) - before).abs().max())
        assert moved > 0.1, moved
        expected["picture_effect"] = round(moved, 3)
    return expected


def search_seeds(output, only, cases, make, first):
    """Makes each case with the first seed whose choices are clear."""
    for name in cases:
        if only not in name:
            continue
        for seed in range(first, first + 400):
            if make(output / "cases" / name, name, seed) is not None:
                print(name, "seed", seed)
                break
        else:
            raise SystemExit(f"{name}: no seed has clear choices")
