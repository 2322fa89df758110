"""IDEFICS cases. Those marked `old` are written by transformers 4.44.2, the others by 5.17."""

import copy
import json

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import IdeficsConfig, IdeficsForVisionText2Text
from transformers.models.idefics.processing_idefics import image_attention_mask_for_packed_input_ids

import golden_common as common

OLD = transformers.__version__.startswith("4.")
RGB, RGBA, GREY, PALETTE = "RGB", "RGBA", "L", "P"
SHORT = "Question: what is in the picture? Answer:"
LONG = [
    "User: text before any image.",
    (RGB, 40, 31),
    "Describe this image.\nAssistant: a cat on a mat.\nUser:",
    (RGBA, 20, 60),
    (GREY, 28, 28),
    "what is in the picture? Answer: two dogs and a house.</s>User:",
    (RGB, 90, 60),
    "Question: what",
]

# name: (case options, configuration beyond the common one, prompt)
CASES = {
    "idefics-base": (
        {},
        {},
        [
            "User: text before any image.",
            (RGB, 40, 31),
            "Describe this image.\nAssistant: a cat on a mat.\nUser:",
            (RGBA, 20, 60),
            (GREY, 28, 28),
            "what is in the picture? Answer:",
            (RGB, 90, 60),
            "Question: what",
        ],
    ),
    "idefics-no-resampler": (
        {},
        {"use_resampler": False},
        [(RGB, 28, 28), (RGB, 45, 30), (RGB, 30, 45), "  a dog and a cat.  ", SHORT],
    ),
    "idefics-plain": (
        {},
        {
            "qk_layer_norms": False,
            "perceiver_config": {"qk_layer_norms_perceiver": False},
            "cross_layer_interval": 1,
            "num_hidden_layers": 3,
            "alpha_type": "vector",
            "rms_norm_eps": 1e-6,
        },
        [(GREY, 33, 50), "Output: a bird.", (PALETTE, 50, 33), "Output:"],
    ),
    "idefics-interval-4": (
        {},
        {
            "cross_layer_interval": 4,
            "num_hidden_layers": 8,
            "hidden_size": 16,
            "num_attention_heads": 2,
            "vision_config": {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-6},
        },
        [
            (RGB, 120, 9),
            "Output: a fox.</s> and text after the end,",
            (RGB, 8, 110),
            "Question: what is it?</s>User: two",
        ],
    ),
    "idefics-interval-3": (
        {"dtype": torch.float16},
        {
            "cross_layer_interval": 3,
            "num_hidden_layers": 6,
            "num_attention_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "vision_config": {"patch_size": 14, "image_size": 42, "num_hidden_layers": 3, "num_attention_heads": 2},
            "perceiver_config": {"resampler_n_heads": 3, "resampler_head_dim": 5, "resampler_depth": 3},
        },
        ["first", (RGB, 42, 42), "second</s>third", (RGBA, 31, 17), (RGB, 17, 31), "fourth"],
    ),
    "idefics-text-only": (
        {"dtype": torch.bfloat16},
        {},
        ["Instruction: provide an answer.\n", "User: the quick brown fox? Answer:"],
    ),
    "idefics-sharded": (
        {"dtype": torch.float16, "shard": "60KB"},
        {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4},
        [(RGB, 64, 48), "Question: a caf\u00e9 \u732b? Answer: \U0001f98a.\n", (RGB, 30, 30), SHORT],
    ),
    "idefics-bf16": (
        {"dtype": torch.bfloat16},
        {"rms_norm_eps": 1e-6},
        [(RGB, 31, 31), "Output: a small red fox.", (RGB, 52, 20), "Output:"],
    ),
    "idefics-instruct": (
        {"utterance": True, "dtype": torch.bfloat16},
        {"additional_vocab_size": 3},
        [
            "User: what is this?",
            (RGB, 36, 36),
            "<end_of_utterance>",
            "\nAssistant: a blue car.",
            "\nUser: and this?",
            (RGBA, 36, 36),
            "<end_of_utterance>\nAssistant:",
        ],
    ),
    "idefics-inv-freq": (
        {"inv_freq": True},
        {"rms_norm_eps": 1e-6},
        [(RGB, 28, 50), "Output: a house.", "Output: two dogs", (RGB, 50, 28), "Output:"],
    ),
    "idefics-no-additional": (
        {"inside": True, "dtype": torch.float16},
        {"additional_vocab_size": 0, "use_resampler": True},
        [(RGB, 30, 40), "Output: a large bird.", (RGB, 40, 30), "Output:"],
    ),
    "idefics-4.44": (
        {"old": True},
        # All nested fields but these are left at values which 4.44.2 then omits or writes as it likes.
        {"rms_norm_eps": 1e-6},
        ["Look:", (RGBA, 44, 33), SHORT, (RGB, 33, 44), "Output:"],
    ),
    "idefics-4.44-sharded": (
        {"old": True, "dtype": torch.bfloat16, "shard": "50KB"},
        {
            "qk_layer_norms": False,
            "alpha_type": "vector",
            "cross_layer_interval": 1,
            "num_hidden_layers": 2,
            # 224 / 14 = 16 and so on are the class's defaults; only the sizes below are written.
            "vision_config": {"image_size": 28, "hidden_act": "gelu"},
        },
        [(PALETTE, 40, 40), (GREY, 25, 40), SHORT],
    ),
    "idefics-kernels": (
        {"dtype": torch.bfloat16},
        {
            "alpha_type": "vector",
            "hidden_size": 48,
            "intermediate_size": 80,
            "vision_config": {
                "embed_dim": 32,
                "image_size": 112,
                "patch_size": 14,
                "intermediate_size": 48,
                "num_attention_heads": 2,
            },
            "perceiver_config": {"resampler_n_latents": 20, "resampler_head_dim": 16},
        },
        LONG,
    ),
    "idefics-80-kernels": (
        {"dtype": torch.float16},
        {
            "hidden_size": 128,
            "intermediate_size": 96,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "cross_layer_interval": 1,
            "vision_config": {
                "embed_dim": 80,
                "intermediate_size": 48,
                "num_hidden_layers": 1,
                "num_attention_heads": 1,
            },
            "perceiver_config": {"resampler_n_latents": 16, "resampler_depth": 1, "resampler_head_dim": 96},
        },
        LONG,
    ),
}


def configuration(changes, base):
    values = {
        "vocab_size": 300,
        "additional_vocab_size": 2,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "cross_layer_interval": 2,
        "rms_norm_eps": 1e-5,
        "qk_layer_norms": True,
        "use_resampler": True,
        "alpha_initializer": "ones",
        "alpha_type": "float",
        "max_position_embeddings": 256,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "vision_config": {
            "embed_dim": 24,
            "image_size": 28,
            "patch_size": 7,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "hidden_act": "gelu",
        },
        "perceiver_config": {
            "use_resampler": True,
            "resampler_n_latents": 5,
            "resampler_depth": 2,
            "resampler_n_heads": 2,
            "resampler_head_dim": 6,
            "qk_layer_norms_perceiver": True,
        },
    }
    for key, value in {**changes, **base}.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    return IdeficsConfig(**values)


def ids_of(parts, tokenizer, utterance):
    text, previous = "<s>", None
    for part in parts:
        if "image" in part:
            text += ("" if previous == "image" else "<fake_token_around_image>") + "<image><fake_token_around_image>"
            previous = "image"
        else:
            text += ("<end_of_utterance>" if utterance and previous == "text" else "") + part["text"].strip(" ")
            previous = "text"
    return tokenizer.encode(text, add_special_tokens=False).ids


class Names:
    """What image_attention_mask_for_packed_input_ids asks of a tokenizer."""

    def __init__(self, image, end):
        self.image, self.eos_token_id = image, end

    def convert_tokens_to_ids(self, _):
        return self.image


def make(folder, name, seed):
    options, changes, prompt = CASES[name]
    common.fresh(folder)
    parts, media = common.prompt_parts(folder, prompt, sum(name.encode()))
    files = [file for files in media for file in files]
    utterance, inside = options.get("utterance", False), options.get("inside", False)
    extra = ["<fake_token_around_image>", "<image>"] + ["<end_of_utterance>"] * utterance
    specials = ["<unk>", "<s>", "</s>"]
    data = common.bpe(300 - len(extra), specials, extra) if inside else common.bpe(300, specials, extra, pairs=not OLD)
    tokenizer = common.tokenizer_of(data)
    fake, image = tokenizer.token_to_id(extra[0]), tokenizer.token_to_id("<image>")
    assert (fake, image) == ((298, 299) if inside else (300, 301)), (fake, image)

    config = configuration(changes, {})
    torch.manual_seed(seed)
    weights, margin = common.weights_of(name, scale=0.3)
    model = weights(IdeficsForVisionText2Text(config), seed).eval()
    model.generation_config.eos_token_id = None
    dtype = options.get("dtype", torch.float32)
    save = dict(max_shard_size=options["shard"]) if "shard" in options else {}
    common.round_to(model, dtype)  # the parameters alone: .to(dtype) would round the rotary frequencies too
    copy.deepcopy(model).to(dtype).save_pretrained(folder / "model", **save)
    (folder / "model" / "generation_config.json").unlink(missing_ok=True)
    if options.get("inv_freq"):
        as_first_published(folder / "model", config)

    common.write_json(folder / "model" / "tokenizer.json", data)
    common.write_json(
        folder / "model" / "tokenizer_config.json",
        {
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "pad_token": "<unk>",
            "padding_side": "left",
            ("additional_special_tokens" if OLD else "extra_special_tokens"): extra,
            "tokenizer_class": "PreTrainedTokenizerFast" if OLD else "TokenizersBackend",
            "model_max_length": 512,
        },
    )
    size = config.vision_config.image_size
    common.write_json(
        folder / "model" / "preprocessor_config.json",
        {
            "image_processor_type": "IdeficsImageProcessor",
            "image_num_channels": 3,
            "image_size": size,
            "image_mean": common.MEAN,
            "image_std": common.STD,
        },
    )

    ids = ids_of(parts, tokenizer, utterance)
    pixels = torch.stack([common.idefics_pixels(file, size) for file in files] or [torch.zeros(3, size, size)])[None]

    def step(rows):
        tokens = torch.tensor(rows)
        prompt_mask = mask_of(torch.tensor([ids]), max(1, len(files)), image)
        grown = prompt_mask[:, -1:].expand(-1, tokens.shape[1] - len(ids), -1)
        mask = torch.cat([prompt_mask, grown], 1).expand(len(rows), -1, -1)
        return model(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            use_cache=False,
            pixel_values=pixels.expand(len(rows), -1, -1, -1, -1),
            image_attention_mask=mask,
        ).logits

    expected = common.expect(step, ids, [fake, image], margin)
    if expected is None:
        return None
    check_generate(model, expected, ids, pixels, mask_of(torch.tensor([ids]), max(1, len(files)), image), [fake, image])
    if files:
        with torch.no_grad():
            before = step([ids])
            pixels = pixels.flip(1, 3)
            moved = float((step([ids]) - before).abs().max())
        assert moved > 0.1, (name, moved)
        expected["picture_effect"] = round(moved, 3)
    expected["family"] = "idefics"
    expected["written_by"] = f"transformers {transformers.__version__}"
    common.write_json(folder / "expected.json", expected, None)
    common.readable(folder)
    return expected


def mask_of(tokens, pictures, image):
    """(batch, tokens, pictures), from the reference's own scan."""
    scan, _ = image_attention_mask_for_packed_input_ids(tokens, Names(image, 2), "pt")
    return torch.stack([(scan == i).long() for i in range(pictures)], -1)


def check_generate(model, expected, ids, pixels, mask, forbidden):
    """The reference's cached generation must agree with the full recomputation."""
    tokens = torch.tensor([ids])
    common_arguments = dict(
        attention_mask=torch.ones_like(tokens),
        pixel_values=pixels,
        image_attention_mask=mask,
        do_sample=False,
        pad_token_id=0,
        suppress_tokens=forbidden,
        use_cache=True,
    )
    greedy = model.generate(tokens, max_new_tokens=12, **common_arguments)[0, len(ids) :].tolist()
    # The beam search of 5.17 sizes its table by vocab_size alone and fails on the additional tokens.
    model.config.vocab_size += model.config.additional_vocab_size
    beam = model.generate(tokens, max_new_tokens=8, num_beams=3, length_penalty=0.0, **common_arguments)[
        0, len(ids) :
    ].tolist()
    for kind, got in (("greedy", greedy), ("beam3", beam)):
        if got != expected[kind]:
            print(f"  generate's {kind} differs: {got} recomputed {expected[kind]}")


def as_first_published(model, config):
    """Tensors and configuration as the first published checkpoints have them."""
    tensors = load_file(model / "model.safetensors")
    half = config.hidden_size // config.num_attention_heads
    inv_freq = 1.0 / 10000 ** (torch.arange(0, half, 2).float() / half)
    for i in range(config.num_hidden_layers):
        tensors[f"model.layers.{i}.self_attn.rotary_emb.inv_freq"] = inv_freq.clone()
    for i in range(config.num_hidden_layers // config.cross_layer_interval):
        tensors[f"model.gated_cross_attn_layers.{i}.cross_attn.rotary_emb.inv_freq"] = inv_freq.clone()
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    path = model / "config.json"
    values = json.loads(path.read_text())
    for key in ("rope_parameters", "dtype"):
        values.pop(key, None)
    values.update(
        torch_dtype="float32",
        transformers_version="4.28.0.dev0",
        cross_layer_activation_function="swiglu",
        vision_embed_dim=24,
        vision_image_size=28,
        word_embed_proj_dim=24,
    )
    for nested in ("vision_config", "perceiver_config"):
        values[nested]["model_type"] = "idefics"
    common.write_json(path, values, 2)


def all_cases(output, only):
    for name, (options, _, _) in CASES.items():
        if options.get("old", False) != OLD or (only and only not in name):
            continue
        for seed in range(1, 60):
            expected = make(output / "cases" / name, name, seed)
            if expected:
                break
        print(
            f"{name}: seed {seed}, {len(expected['token_ids'])} tokens, largest logit {expected['largest_logit']}, "
            f"pictures move logits by {expected.get('picture_effect')}"
        )
