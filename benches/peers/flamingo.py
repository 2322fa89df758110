"""The models of `benches/real.rs` in plain PyTorch, bf16, random weights: what `strong.py` compiles and `hf.py` runs as
OpenFlamingo's own code does."""
import torch
import torch.nn.functional as F
from torch import nn

VIT_L = dict(width=1024, layers=24, heads=16, mlp=4096, quick=True, keep_class=False)
VIT_H = dict(width=1280, layers=32, heads=16, mlp=5120, quick=False, keep_class=True)
OF_RESAMPLER = dict(heads=8, head=64, mlp=4096, activation=F.gelu, normed=False)
CONFIGS = {
    "OpenFlamingo-3B": dict(
        vision=VIT_L, resampler=OF_RESAMPLER, llama=False, width=2048, layers=24, heads=16, mlp=8192, vocabulary=50280,
        normed=True, gated=dict(interval=1, first=0, heads=8, head=64, mlp=8192),
    ),
    "OpenFlamingo-9B": dict(
        vision=VIT_L, resampler=OF_RESAMPLER, llama=False, width=4096, layers=32, heads=32, mlp=16384, vocabulary=50280,
        normed=False, gated=dict(interval=4, first=3, heads=8, head=64, mlp=16384),
    ),
    "IDEFICS-9B": dict(
        vision=VIT_H, resampler=dict(heads=16, head=96, mlp=5120, activation=F.relu, normed=True), llama=True,
        width=4096, layers=32, heads=32, mlp=11008, vocabulary=32002, normed=False,
        gated=dict(interval=4, first=0, heads=32, head=128, mlp=11008),
    ),
}
LATENTS, DEPTH, SIDE, PATCH = 64, 6, 224, 14


def split_heads(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x):
    return x.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Of a vision tower: all tokens of a picture to each other."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        return self.out(join_heads(F.scaled_dot_product_attention(q, k, v)))


class VisionLayer(nn.Module):
    def __init__(self, width, heads, mlp, quick):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention, self.up, self.down = Attention(width, heads), nn.Linear(width, mlp), nn.Linear(mlp, width)
        self.quick = quick

    def forward(self, x):
        x = x + self.attention(self.norms[0](x))
        y = self.up(self.norms[1](x))
        return x + self.down(y * torch.sigmoid(1.702 * y) if self.quick else F.gelu(y))


class Vision(nn.Module):
    def __init__(self, width, layers, heads, mlp, quick, keep_class):
        super().__init__()
        self.patch = nn.Conv2d(3, width, PATCH, PATCH, bias=False)
        self.first = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, (SIDE // PATCH) ** 2 + 1, width))
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(VisionLayer(width, heads, mlp, quick) for _ in range(layers))
        self.keep_class = keep_class

    def forward(self, pixels):
        x = self.patch(pixels).flatten(2).transpose(1, 2)
        x = self.norm(torch.cat([self.first.expand(len(x), -1, -1), x], 1) + self.position)
        for layer in self.layers:
            x = layer(x)
        return x if self.keep_class else x[:, 1:]


class ResamplerLayer(nn.Module):
    def __init__(self, width, heads, head, mlp, activation, normed):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.head_norms = nn.ModuleList(nn.LayerNorm(head) if normed else nn.Identity() for _ in range(2))
        self.query, self.key_value = (nn.Linear(width, times * heads * head, bias=False) for times in (1, 2))
        self.out = nn.Linear(heads * head, width, bias=False)
        self.up, self.down = nn.Linear(width, mlp, bias=False), nn.Linear(mlp, width, bias=False)
        self.heads, self.activation = heads, activation

    def forward(self, latents, media):
        x = self.norms[1](latents)
        k, v = self.key_value(torch.cat([self.norms[0](media), x], 1)).chunk(2, -1)
        q, k, v = (split_heads(part, self.heads) for part in (self.query(x), k, v))
        q, k = self.head_norms[0](q), self.head_norms[1](k)
        latents = latents + self.out(join_heads(F.scaled_dot_product_attention(q, k, v)))
        return latents + self.down(self.activation(self.up(self.norms[2](latents))))


class Mlp(nn.Module):
    def __init__(self, width, hidden, llama):
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden if llama else hidden, bias=False)
        self.down, self.llama = nn.Linear(hidden, width, bias=False), llama

    def forward(self, x):
        if not self.llama:
            return self.down(F.gelu(self.up(x)))
        gate, up = self.up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


class GatedBlock(nn.Module):
    def __init__(self, width, media, heads, head, mlp, llama):
        super().__init__()
        norm = nn.RMSNorm if llama else nn.LayerNorm
        self.norms = nn.ModuleList(norm(width) for _ in range(2))
        self.head_norms = nn.ModuleList(nn.RMSNorm(head) if llama else nn.Identity() for _ in range(2))
        self.query = nn.Linear(width, heads * head, bias=False)
        self.key_value = nn.Linear(media, 2 * heads * head, bias=False)
        self.out, self.mlp = nn.Linear(heads * head, width, bias=False), Mlp(width, mlp, llama)
        self.gates, self.heads = nn.Parameter(torch.ones(2)), heads

    def project(self, latents):
        k, v = (split_heads(part, self.heads) for part in self.key_value(latents).chunk(2, -1))
        return self.head_norms[1](k), v

    def forward(self, x, key, value, mask):
        q = self.head_norms[0](split_heads(self.query(self.norms[0](x)), self.heads))
        y = self.out(join_heads(F.scaled_dot_product_attention(q, key, value, attn_mask=mask)))
        gates = torch.tanh(self.gates)
        x = x + gates[0] * y
        return x + gates[1] * self.mlp(self.norms[1](x))


class DecoderLayer(nn.Module):
    def __init__(self, width, heads, mlp, llama, normed):
        super().__init__()
        norm = nn.RMSNorm if llama else (lambda size: nn.LayerNorm(size, bias=False))
        self.norms = nn.ModuleList(norm(width) for _ in range(2))
        self.qk_norms = nn.ModuleList(norm(width) if normed else nn.Identity() for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.mlp, self.heads = Mlp(width, mlp, llama), heads

    def forward(self, x, cache, positions, rotary, mask):
        q, k, v = self.qkv(self.norms[0](x)).chunk(3, -1)
        q, k, v = (split_heads(part, self.heads) for part in (self.qk_norms[0](q), self.qk_norms[1](k), v))
        if rotary is not None:
            q, k = (rotate(part, *rotary) for part in (q, k))
        key, value = cache.update(k, v, positions)
        x = x + self.out(join_heads(F.scaled_dot_product_attention(q, key, value, attn_mask=mask)))
        return x + self.mlp(self.norms[1](x))


def rotate(x, cosine, sine):
    first, second = x.chunk(2, -1)
    return x * cosine + torch.cat([-second, first], -1) * sine


def kept(tensor):
    """A tensor that stays where it is: CUDA graphs neither copy it nor mind that it is written to."""
    torch._dynamo.mark_static_address(tensor)
    return tensor


class StaticCache:
    """Room for a whole sequence from the start; what is beyond its end is masked."""

    def __init__(self, batch, heads, length, width):
        shape = (batch, heads, length, width)
        self.key, self.value = (kept(torch.zeros(shape, device="cuda", dtype=torch.bfloat16)) for _ in range(2))

    def update(self, k, v, positions):
        self.key.index_copy_(2, positions, k)
        self.value.index_copy_(2, positions, v)
        return self.key, self.value


class GrowingCache:
    """As `generate` keeps it by default: each step makes new tensors."""

    def __init__(self):
        self.key = self.value = None

    def update(self, k, v, positions):
        if self.key is not None:
            k, v = torch.cat([self.key, k], 2), torch.cat([self.value, v], 2)
        self.key, self.value = k, v
        return k, v


class Flamingo(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, gated = config["width"], config["gated"]
        media = config["vision"]["width"]
        self.config, self.llama, self.heads = config, config["llama"], config["heads"]
        self.vision = Vision(**config["vision"])
        self.latents = nn.Parameter(torch.randn(1, LATENTS, media))
        self.resampler = nn.ModuleList(ResamplerLayer(media, **config["resampler"]) for _ in range(DEPTH))
        self.resampler_norm = nn.LayerNorm(media)
        self.embedding = nn.Embedding(config["vocabulary"], width)
        sizes = {key: gated[key] for key in ("heads", "head", "mlp")}
        before = range(gated["first"], config["layers"], gated["interval"])
        self.blocks = nn.ModuleDict({str(layer): GatedBlock(width, media, llama=self.llama, **sizes) for layer in before})
        for index, block in enumerate(self.blocks.values()):
            block.index = index
        self.layers = nn.ModuleList(
            DecoderLayer(width, self.heads, config["mlp"], self.llama, config["normed"]) for _ in range(config["layers"])
        )
        self.norm = nn.RMSNorm(width) if self.llama else nn.LayerNorm(width, bias=False)
        self.head = nn.Linear(width, config["vocabulary"], bias=False)

    def encode(self, pixels):
        media = self.vision(pixels)
        latents = self.latents.expand(len(pixels), -1, -1)
        for layer in self.resampler:
            latents = layer(latents, media)
        return self.resampler_norm(latents)

    def project(self, latents):
        """Keys and values of all gated blocks: what is kept of a picture."""
        return [block.project(latents) for block in self.blocks.values()]

    def text(self, ids, positions, caches, length, media, mask=None):
        """Logits of the last tokens. `positions` (tokens); `length` of the keys in the caches; `media` the latents, to be
        projected anew, or their keys and values; `mask` (tokens, pictures * latents): which of them a token sees."""
        x = self.embedding(ids)
        distance = torch.arange(length, device=ids.device) - positions[:, None]
        rotary = None
        if self.llama:
            angles = torch.cat([positions[:, None] * self.frequencies] * 2, -1)
            rotary = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
            sight = (distance <= 0)[None, None]
        else:
            bias = self.slopes[:, None, None] * distance
            sight = bias.masked_fill(distance > 0, float("-inf")).to(x.dtype)[None]
        for layer, (block, cache) in enumerate(zip(self.layers, caches)):
            if str(layer) in self.blocks:
                gated = self.blocks[str(layer)]
                key, value = gated.project(media) if torch.is_tensor(media) else media[gated.index]
                x = gated(x, key, value, mask)
            x = block(x, cache, positions, rotary, sight)
        return self.head(self.norm(x[:, -1:]))


def build(name):
    """The model `name` on the GPU, bf16, all weights random and small."""
    with torch.device("meta"):
        model = Flamingo(CONFIGS[name])
    model = model.to(torch.bfloat16).to_empty(device="cuda").eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(std=0.02) if parameter.ndim > 1 else parameter.fill_(0.5)
    half, heads = model.config["width"] // model.heads // 2, model.heads
    model.frequencies = 10000.0 ** (-torch.arange(half, device="cuda") / half)
    model.slopes = 2.0 ** (-8.0 * torch.arange(1, heads + 1, device="cuda") / heads)
    return model


def pixels(count):
    return torch.randn(count, 3, SIDE, SIDE, device="cuda", dtype=torch.bfloat16)


def random_ids(model, batch, tokens):
    return torch.randint(0, model.config["vocabulary"], (batch, tokens), device="cuda")


def seen(tokens, pictures):
    """Which latents each token of a prompt sees: those of the picture before it."""
    picture = torch.arange(tokens, device="cuda") * pictures // tokens
    return picture[:, None] == (torch.arange(pictures * LATENTS, device="cuda") // LATENTS)[None]
