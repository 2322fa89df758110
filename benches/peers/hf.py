"""What people run today: transformers' own IDEFICS, and for OpenFlamingo a loop that does what its code does (eager,
a cache that grows, all pictures projected anew for every token). Sampling is left out on both sides.

    python3 benches/peers/hf.py [MODEL ..]
"""
import sys

import torch
from flamingo import CONFIGS, GrowingCache, build, pixels, random_ids, seen
from timing import SAMPLES, median, tell

TOKENS, PICTURES, SEQUENCES, ENCODED, SHOTS, SHOT_TOKENS = 512, 4, 16, 8, 8, 32


class OpenFlamingo:
    def __init__(self, name):
        self.model = build(name)

    def encode(self, pictures):
        return self.model.encode(pictures)

    def start(self, batch, tokens, count):
        """A prompt: what its step takes on from."""
        latents = self.encode(pixels(batch * count)).unflatten(0, (batch, count)).flatten(1, 2)
        kept = [GrowingCache() for _ in self.model.layers]
        self.model.text(
            random_ids(self.model, batch, tokens), torch.arange(tokens, device="cuda"), kept, tokens, latents, seen(tokens, count)
        )
        return {"caches": kept, "latents": latents, "length": tokens, "mask": seen(tokens, count)[-1:]}

    def step(self, state, ids):
        state["length"] += 1
        positions = torch.tensor([state["length"] - 1], device="cuda")
        self.model.text(ids, positions, state["caches"], state["length"], state["latents"], state["mask"])

    def ids(self, batch):
        return random_ids(self.model, batch, 1)


class Idefics:
    def __init__(self, name):
        from transformers import IdeficsConfig, IdeficsForVisionText2Text

        config = IdeficsConfig(
            vocab_size=32000, additional_vocab_size=2, cross_layer_interval=4, qk_layer_norms=True, use_resampler=True,
            vision_config=dict(
                embed_dim=1280, image_size=224, intermediate_size=5120, patch_size=14, num_hidden_layers=32,
                num_attention_heads=16, hidden_act="gelu",
            ),
            perceiver_config=dict(
                use_resampler=True, resampler_n_latents=64, resampler_depth=6, resampler_n_heads=16, resampler_head_dim=96,
                qk_layer_norms_perceiver=True,
            ),
        )
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        with torch.device("cuda"):
            self.model = IdeficsForVisionText2Text(config).eval()
        torch.set_default_dtype(default)

    def encode(self, pictures):
        tokens = self.model.model.vision_model(pixel_values=pictures).last_hidden_state
        return self.model.model.perceiver_resampler(tokens)

    def start(self, batch, tokens, count):
        seen_pictures = torch.arange(tokens, device="cuda") * count // tokens
        mask = torch.nn.functional.one_hot(seen_pictures, count).expand(batch, -1, -1)
        out = self.model(
            input_ids=torch.randint(0, 32000, (batch, tokens), device="cuda"),
            attention_mask=torch.ones(batch, tokens, dtype=torch.long, device="cuda"),
            pixel_values=pixels(batch * count).unflatten(0, (batch, count)),
            image_attention_mask=mask,
            use_cache=True,
        )
        return {"out": out, "media": out.image_hidden_states, "length": tokens, "mask": mask[:, -1:]}

    def step(self, state, ids):
        state["length"] += 1
        state["out"] = self.model(
            input_ids=ids,
            attention_mask=torch.ones(len(ids), state["length"], dtype=torch.long, device="cuda"),
            past_key_values=state["out"].past_key_values,
            perceiver_embeddings=state["media"],
            image_attention_mask=state["mask"],
            use_cache=True,
        )

    def ids(self, batch):
        return torch.randint(0, 32000, (batch, 1), device="cuda")


def run(name):
    peer = Idefics(name) if name.startswith("IDEFICS") else OpenFlamingo(name)
    for batch in (1, SEQUENCES):
        # The cache grows by one token a sample: the median stands for half as many more.
        state, ids = peer.start(batch, TOKENS - SAMPLES // 2, PICTURES), peer.ids(batch)
        tell(f"{name}/decode{batch}at{TOKENS}", "hf", median(lambda: peer.step(state, ids)))
        del state
    pictures = pixels(ENCODED)
    encode = median(lambda: peer.encode(pictures))
    tell(f"{name}/encode{ENCODED}", "hf", encode)
    # A prompt is encoded and read in one call.
    tell(f"{name}/first{SHOTS}shots", "hf", median(lambda: peer.start(1, (SHOTS + 1) * SHOT_TOKENS, SHOTS + 1)))


if __name__ == "__main__":
    torch.manual_seed(0)
    with torch.no_grad():
        for name in sys.argv[1:] or CONFIGS:
            run(name)
            torch.cuda.empty_cache()
