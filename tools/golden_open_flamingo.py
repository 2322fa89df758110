"""OpenFlamingo cases: transformers 4.44.2 language models in open_flamingo 2.0.1's mixin, with open_clip 2.20's tower."""

import copy
import io
import json

import torch
from open_clip.transformer import LayerNorm, QuickGELU, VisionTransformer
from open_flamingo.src.flamingo import Flamingo
from open_flamingo.src.flamingo_lm import FlamingoLMMixin
from open_flamingo.src.helpers import PerceiverResampler
from open_flamingo.src.utils import extend_instance
from safetensors.torch import save_file
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MptConfig,
    MptForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

import golden_common as common
from golden_mosaic import MosaicConfig, MosaicGPT

TOKENS = 280  # of the plain tokenizer
SPARE = 12  # rows of the language model beyond them
RGB, GREY, PALETTE = "RGB", "L", "P"
EOC = "<|endofchunk|>"
PAIR = [(RGB, 40, 31), "Output: a small red fox." + EOC, (RGB, 26, 60), "Output:"]

# family: (class, configuration, names of the decoder layers, tokenizer: first tokens, token put in front, padding)
FAMILIES = {
    "mpt": (
        MptForCausalLM,
        dict(n_heads=4, max_seq_len=256, expansion_ratio=4),
        "transformer.blocks",
        (["<|endoftext|>", "<|padding|>"], None, None),
    ),
    "mosaic": (
        MosaicGPT,
        dict(n_heads=4, max_seq_len=256),
        "transformer.blocks",
        (["<|endoftext|>", "<|padding|>"], None, None),
    ),
    "neox": (
        GPTNeoXForCausalLM,
        dict(num_attention_heads=4, intermediate_size=80, max_position_embeddings=256),
        "gpt_neox.layers",
        (["<|endoftext|>", "<|padding|>"], None, None),
    ),
    "llama": (
        LlamaForCausalLM,
        dict(num_attention_heads=4, intermediate_size=56, max_position_embeddings=256),
        "model.layers",
        (["<unk>", "<s>", "</s>"], "<s>", None),
    ),
    "opt": (
        OPTForCausalLM,
        dict(num_attention_heads=4, ffn_dim=72, max_position_embeddings=128),
        "model.decoder.layers",
        (["<s>", "<pad>", "</s>", "<unk>"], "</s>", "<pad>"),
    ),
}

# name: family, layers, every, then what differs from DEFAULTS
DEFAULTS = {
    "width": 16,
    "lm": {},
    "checkpoint": "flat",
    "dtype": torch.float16,
    "language_dtype": torch.float32,
    "vision": "open_clip",
    "image": 28,
    "patch": 14,
    "vision_width": 16,
    "vision_layers": 2,
    "vision_heads": 1,
    "depth": 1,
    "latents": 5,
    "frames": None,
    "prompt": PAIR,
}
WIDE = {
    "width": 32,
    "language_dtype": torch.float16,
    "vision": "torchscript",
    "image": 112,
    "vision_width": 32,
    "vision_heads": 2,
    "latents": 20,
    "prompt": [
        "A red fox. ",
        (RGB, 47, 35),
        "Output: a small green house" + EOC,
        (RGB, 28, 28),
        (GREY, 50, 30),
        "Question: what is in the picture? Short answer: two dogs" + EOC,
        (RGB, 22, 64),
        "Question: what is in the picture? Short answer:",
    ],
}
CASES = {
    "open_flamingo-mpt": (
        "mpt",
        3,
        2,
        {
            "dtype": torch.float32,
            "image": 35,
            "patch": 7,
            "prompt": [
                "A red fox. ",
                (RGB, 47, 35),
                "Output: a small green house" + EOC,
                (RGB, 28, 28),
                "Question: what is in the picture? Short answer: two dogs" + EOC,
                (RGB, 22, 64),
                "Output:",
            ],
        },
    ),
    "open_flamingo-llama": (
        "llama",
        2,
        2,
        {
            "width": 24,
            "vision": "transformers",
            "vision_heads": 2,
            "prompt": ["Answer: ", (RGB, 33, 33), (RGB, 50, 30), "two pictures." + EOC, (GREY, 30, 50), "Output:"],
        },
    ),
    "open_flamingo-mpt-every-1": (
        "mpt",
        3,
        1,
        {
            "width": 12,
            "lm": {"n_heads": 3},
            "clip_qkv": 1.5,
            "vision_layers": 3,
            "prompt": [(RGB, 40, 31), "Output: a fox." + EOC, (PALETTE, 60, 26), "Output:"],
        },
    ),
    "open_flamingo-mpt-every-4": (
        "mpt",
        8,
        4,
        {
            "width": 18,
            "language_dtype": torch.bfloat16,
            "lm": {"n_heads": 6, "max_seq_len": 128},
            "checkpoint": "training",
            "image": 32,
            "patch": 16,
        },
    ),
    "open_flamingo-mpt-text-only": (
        "mpt",
        2,
        1,
        {"vision": "torchscript", "prompt": ["Question: what is a dog? Short answer:"], "dtype": torch.bfloat16},
    ),
    "open_flamingo-mosaic": (
        "mosaic",
        2,
        2,
        {
            "dtype": torch.bfloat16,
            "language_dtype": torch.bfloat16,
            "vision": "torchscript",
            "vision_width": 32,
            "vision_heads": 2,
            "vision_layers": 1,
        },
    ),
    "open_flamingo-mosaic-transposed": (
        "mosaic",
        4,
        2,
        {
            "checkpoint": "transposed",
            "lm": {"n_heads": 2},
            "image": 28,
            "prompt": ["text first ", (RGB, 40, 31), (RGB, 31, 40), "Output: a cat." + EOC + "Output:"],
        },
    ),
    "open_flamingo-neox": (
        "neox",
        3,
        2,
        {
            "lm": {"rotary_pct": 1.0, "use_parallel_residual": False},
            "vision": "pt",
            "image": 48,
            "patch": 16,
            "depth": 2,
            "language_dtype": torch.float16,
            "vision_layers": 3,
            "latents": 7,
        },
    ),
    "open_flamingo-neox-parallel": (
        "neox",
        2,
        2,
        {
            "width": 32,
            "lm": {"num_attention_heads": 2, "rotary_pct": 0.25, "use_parallel_residual": True},
            "checkpoint": "transposed",
            "language_dtype": torch.float16,
        },
    ),
    "open_flamingo-llama-alias": (
        "llama",
        4,
        2,
        {
            "language_dtype": torch.bfloat16,
            "lm": {"num_attention_heads": 2, "rms_norm_eps": 1e-5},
            "checkpoint": "alias",
            "prompt": [
                (RGB, 64, 32),
                "Question: what? Short answer: a bird" + EOC + "no picture here" + EOC,
                (RGB, 32, 64),
                "Question: caf\u00e9 \u732b? Short answer:",
            ],
        },
    ),
    "open_flamingo-opt": ("opt", 3, 3, {"vision_layers": 1, "checkpoint": "training-alias"}),
    "open_flamingo-opt-f16": (
        "opt",
        2,
        1,
        {
            "language_dtype": torch.float16,
            "vision": "transformers",
            "prompt": [(RGB, 32, 32), "Output:", (RGB, 20, 20)],
        },
    ),
    "open_flamingo-mpt-kernels": ("mpt", 2, 2, {**WIDE, "dtype": torch.bfloat16, "lm": {"n_heads": 2}}),
    "open_flamingo-neox-kernels": (
        "neox",
        2,
        2,
        {**WIDE, "lm": {"num_attention_heads": 2, "rotary_pct": 0.5, "use_parallel_residual": False}},
    ),
    "open_flamingo-neox-parallel-kernels": (
        "neox",
        2,
        2,
        {**WIDE, "lm": {"num_attention_heads": 2, "rotary_pct": 0.25, "use_parallel_residual": True}},
    ),
    "open_flamingo-mpt-video": (
        "mpt",
        2,
        1,
        {
            "frames": 4,
            "depth": 2,
            "prompt": [
                [(RGB, 40, 31), (RGB, 40, 31), (RGB, 40, 31)],
                "Output: a fox runs." + EOC,
                [(RGB, 30, 30), (RGB, 30, 30), (RGB, 30, 30)],
                "Output:",
            ],
        },
    ),
    "open_flamingo-neox-video": (
        "neox",
        2,
        2,
        {
            "lm": {"rotary_pct": 1.0},
            "frames": 4,
            "depth": 2,
            "prompt": [
                (RGB, 31, 40),
                "Output: a fox." + EOC,
                [(RGB, 40, 31)] * 6,
                "Output: it runs." + EOC,
                [(GREY, 28, 28)] * 2,
                "Output:",
            ],
        },
    ),
    "open_flamingo-llama-video": (
        "llama",
        2,
        2,
        {
            "vision": "transformers",
            "depth": 2,
            "prompt": [[(RGB, 33, 33)] * 3, "Output: two birds." + EOC, (RGB, 50, 30), "Output:"],
        },
    ),
    "open_flamingo-opt-video-kernels": (
        "opt",
        2,
        2,
        {
            **WIDE,
            "lm": {"num_attention_heads": 2, "ffn_dim": 80},
            "frames": 3,
            "prompt": [
                [(RGB, 47, 35)] * 5,
                "Output: a small house" + EOC,
                (RGB, 28, 28),
                "Output: two dogs" + EOC,
                [(RGB, 22, 64)] * 2,
                "Output:",
            ],
        },
    ),
    "open_flamingo-opt-kernels": ("opt", 2, 2, {**WIDE, "lm": {"num_attention_heads": 2, "ffn_dim": 80}}),
}


def language_model(family, layers, width, options, changes, weights, seed):
    cls, values, blocks, _ = FAMILIES[family]
    values = {**values, "vocab_size": TOKENS + SPARE, **changes}
    if family == "mpt":
        config = MptConfig(d_model=width, n_layers=layers, **values)
        config.attn_config.clip_qkv = options.get("clip_qkv")
    elif family == "mosaic":
        config = MosaicConfig(d_model=width, n_layers=layers, **values)
    elif family == "opt":
        config = OPTConfig(hidden_size=width, word_embed_proj_dim=width, num_hidden_layers=layers, **values)
    else:
        config = (GPTNeoXConfig if family == "neox" else LlamaConfig)(
            hidden_size=width, num_hidden_layers=layers, **values
        )
    if family == "mosaic":
        model = cls(config)
    else:
        config._attn_implementation = "eager"
        model = cls._from_config(config, attn_implementation="eager")
    return weights(model, seed).eval(), blocks


class Tower(torch.nn.Module):
    """A CLIP model as open_clip builds one: the tower under `visual`, and what belongs to the text tower."""

    def __init__(self, options):
        super().__init__()
        self.visual = VisionTransformer(
            image_size=options["image"],
            patch_size=options["patch"],
            width=options["vision_width"],
            layers=options["vision_layers"],
            heads=options["vision_heads"],
            mlp_ratio=4.0,
            output_dim=16,
            act_layer=QuickGELU,
            norm_layer=LayerNorm,
            output_tokens=True,
        )
        self.token_embedding = torch.nn.Embedding(10, 16)
        self.ln_final = torch.nn.LayerNorm(16)
        self.positional_embedding = torch.nn.Parameter(torch.empty(7, 16))
        self.text_projection = torch.nn.Parameter(torch.empty(16, 16))
        self.logit_scale = torch.nn.Parameter(torch.tensor(0.0))

    def forward(self, pixels):
        return self.visual(pixels)


def save_vision(folder, tower, options):
    state = {name: value.clone().contiguous() for name, value in tower.state_dict().items()}
    kind = options["vision"]
    if kind == "open_clip":
        save_file(state, folder / "vision.safetensors")
    elif kind == "pt":
        torch.save(state, folder / "vision.pt")
    elif kind == "torchscript":
        for name, value in {"input_resolution": options["image"], "context_length": 7, "vocab_size": 10}.items():
            tower.register_buffer(name, torch.tensor(value))
        half = copy.deepcopy(tower).half()
        example = torch.zeros(1, 3, options["image"], options["image"], dtype=torch.float16)
        save_traced(torch.jit.trace(half, example, check_trace=False), folder / "vision.pt")
    else:
        save_file(as_transformers(state, options), folder / "vision.safetensors")
        common.write_json(
            folder / "config.json",
            {
                "architectures": ["CLIPModel"],
                "model_type": "clip",
                "projection_dim": 16,
                "vision_config": {
                    "model_type": "clip_vision_model",
                    "hidden_size": options["vision_width"],
                    "hidden_act": "quick_gelu",
                    "intermediate_size": 4 * options["vision_width"],
                    "num_attention_heads": options["vision_heads"],
                    "num_hidden_layers": options["vision_layers"],
                    "image_size": options["image"],
                    "patch_size": options["patch"],
                    "layer_norm_eps": 1e-5,
                    "num_channels": 3,
                },
            },
        )


def save_traced(module, path):
    """A TorchScript archive without its debug records, which name the files of the machine that wrote it."""
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    reader = torch._C.PyTorchFileReader(io.BytesIO(buffer.getvalue()))
    writer = torch._C.PyTorchFileWriter(str(path))
    for name in sorted(reader.get_all_records()):
        if not name.endswith(".debug_pkl") and name not in ("version", ".data/serialization_id"):
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    torch.jit.load(str(path))


def as_transformers(state, options):
    """The names of transformers' CLIPModel, for the same tower."""
    names = {
        "visual.class_embedding": "embeddings.class_embedding",
        "visual.conv1.weight": "embeddings.patch_embedding.weight",
        "visual.positional_embedding": "embeddings.position_embedding.weight",
    }
    out = {}
    for name, value in state.items():
        if name in names:
            out["vision_model." + names[name]] = value
        elif name.startswith("visual.ln_"):
            out[
                name.replace("visual.ln_pre", "vision_model.pre_layrnorm").replace(
                    "visual.ln_post", "vision_model.post_layernorm"
                )
            ] = value
        elif name == "visual.proj":
            out["visual_projection.weight"] = value.T.contiguous()
        elif name.startswith("visual.transformer.resblocks."):
            layer, rest = name.removeprefix("visual.transformer.resblocks.").split(".", 1)
            prefix = f"vision_model.encoder.layers.{layer}."
            if rest.startswith("attn.in_proj_"):
                for letter, part in zip("qkv", value.chunk(3)):
                    out[f"{prefix}self_attn.{letter}_proj.{rest.removeprefix('attn.in_proj_')}"] = part.clone()
            else:
                for old, new in (
                    ("ln_1", "layer_norm1"),
                    ("ln_2", "layer_norm2"),
                    ("attn.out_proj", "self_attn.out_proj"),
                    ("mlp.c_fc", "mlp.fc1"),
                    ("mlp.c_proj", "mlp.fc2"),
                ):
                    rest = rest.replace(old, new)
                out[prefix + rest] = value
    positions = (options["image"] // options["patch"]) ** 2 + 1
    out["vision_model.embeddings.position_ids"] = torch.arange(positions)[None]
    out["text_model.embeddings.token_embedding.weight"] = state["token_embedding.weight"]
    out["text_model.final_layer_norm.weight"] = state["ln_final.weight"]
    out["text_projection.weight"] = state["text_projection"]
    out["logit_scale"] = state["logit_scale"]
    return out


def trainable_state(model):
    """What OpenFlamingo's training keeps: trained parameters, whatever is named an embedding, and buffers."""
    state = model.state_dict()
    for name, parameter in model.named_parameters():
        if "embed" in name:
            parameter.requires_grad = True
        if not parameter.requires_grad:
            del state[name]
    return state


def save_checkpoint(path, model, kind, dtype):
    model.requires_grad_(False)
    model.perceiver.requires_grad_(True)
    model.lang_encoder.gated_cross_attn_layers.requires_grad_(True)
    model.lang_encoder.get_input_embeddings().requires_grad_(True)
    shared = {}  # tied tensors stay tied in the file

    def cast(value):
        key = (value.data_ptr(), value.shape)
        if key not in shared:
            shared[key] = value.detach().to(dtype).clone() if value.is_floating_point() else value.clone()
        return shared[key]

    everything = {name: cast(value) for name, value in trainable_state(model).items()}
    aliases = ("lang_encoder.old_decoder_blocks", "lang_encoder.gated_cross_attn_layers", "vision_encoder")
    aliases = aliases[-1:] if "alias" in kind else aliases
    kept = {name: value for name, value in everything.items() if not any(alias in name for alias in aliases)}
    if "alias" in kind:  # of the frozen layers one is enough
        frozen = tuple(f"lang_encoder.old_decoder_blocks.{i}." for i in range(1, 99))
        kept = {name: value for name, value in kept.items() if not name.startswith(frozen)}
    if kind == "transposed":
        kept = {name: value.T.contiguous().T if value.ndim == 2 else value for name, value in kept.items()}
    if kind.startswith("training"):
        step = {"step": torch.tensor(3.0), "exp_avg": torch.ones(2, 2), "exp_avg_sq": torch.ones(2, 2)}
        kept = {
            "epoch": 2,
            "model_state_dict": {"module." + name: value for name, value in kept.items()},
            "optimizer_state_dict": {
                "state": {0: step},
                "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999), "params": [0]}],
            },
            "lr_scheduler_state_dict": {"base_lrs": [1e-4], "last_epoch": 3, "_last_lr": [1e-4], "lr_lambdas": [None]},
        }
    torch.save(kept, path)


def save_language(folder, model, family, dtype, tokens):
    folder.mkdir()
    half = copy.deepcopy(model).to(dtype)
    half.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    specials, prefix, padding = FAMILIES[family][3]
    common.write_json(folder / "tokenizer.json", tokens)
    first = prefix or specials[0]
    names = {
        "bos_token": first,
        "eos_token": "</s>" if "</s>" in specials else specials[0],
        "unk_token": "<unk>" if "<unk>" in specials else specials[0],
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 2048,
    }
    if padding:
        names["pad_token"] = padding
    common.write_json(folder / "tokenizer_config.json", names)


def make(folder, name, seed):
    family, layers, every, changes = CASES[name]
    options = {**DEFAULTS, **changes}
    specials, prefix, padding = FAMILIES[family][3]
    common.fresh(folder)
    parts, media_files = common.prompt_parts(folder, options["prompt"], sum(name.encode()))

    tokens = common.bpe(TOKENS, specials, prefix=prefix, pairs="mpt" in name)
    tokenizer = common.tokenizer_of(tokens)
    tokenizer.add_special_tokens([EOC, "<image>"] + ["<PAD>"] * (padding is None))
    eoc, media = tokenizer.token_to_id(EOC), tokenizer.token_to_id("<image>")
    assert (eoc, media) == (TOKENS, TOKENS + 1)
    ids = tokenizer.encode("".join(part.get("text", "<image>") for part in parts)).ids

    weights, margin = common.weights_of(name)
    language, blocks = language_model(family, layers, options["width"], options, options["lm"], weights, seed)
    common.round_to(language, options["language_dtype"])
    save_language(folder / "language", language, family, options["language_dtype"], tokens)
    language.resize_token_embeddings(tokenizer.get_vocab_size())
    extend_instance(language, FlamingoLMMixin)
    language.set_decoder_layers_attr_name(blocks)

    tower = weights(Tower(options), seed + 1).eval()
    if options["vision"] == "torchscript":
        common.round_to(tower, torch.float16)
    save_vision(folder, tower, options)
    model = Flamingo(tower, language, eoc, media, options["vision_width"], every)
    model.perceiver = PerceiverResampler(
        dim=options["vision_width"],
        depth=options["depth"],
        num_latents=options["latents"],
        max_num_frames=options["frames"],
    )
    model.perceiver._use_gradient_checkpointing = False
    weights(model.perceiver, seed + 2)
    weights(language.gated_cross_attn_layers, seed + 3)
    trained = torch.nn.ModuleDict({"embed": language.get_input_embeddings()})
    if family == "neox":
        trained["embed_out"] = language.get_output_embeddings()
    weights(trained, seed + 4)
    for part in (model.perceiver, language.gated_cross_attn_layers, trained):
        common.round_to(part, options["dtype"])
    if family == "opt":
        common.round_to(language.model.decoder.embed_positions, options["dtype"])
    save_checkpoint(folder / "checkpoint.pt", model, options["checkpoint"], options["dtype"])
    model.eval()

    size = options["image"]
    pictures = [torch.stack([common.open_clip_pixels(file, size) for file in files]) for files in media_files]
    has_videos = any(len(frames) > 1 for frames in pictures)
    if has_videos:  # open_flamingo's model refuses them, its resampler does not
        model._encode_vision_x = lambda vision_x: encode_videos(model, pictures, len(vision_x))

    def vision_x_of(media):
        return torch.stack(media)[None] if media and not has_videos else torch.zeros(1, 1, 1, 3, size, size)

    def step(rows):
        batch = torch.tensor(rows)
        vision_x = vision_x_of(pictures)
        return model(
            vision_x.expand(len(rows), *vision_x.shape[1:]), batch, torch.ones_like(batch), use_cache=False
        ).logits

    expected = common.expect(step, ids, [media], margin)
    if expected is None:
        return None
    check_generate(model, expected, ids, vision_x_of(pictures), media)
    if pictures:
        with torch.no_grad():
            features = tower(torch.cat(pictures))[0]
            expected["features"] = [[round(float(v), 6) for v in row] for row in torch.nn.functional.normalize(features)]
            before = step([ids])
            pictures[:] = [video.flip(-1) for video in reversed(pictures)]
            moved = float((step([ids]) - before).abs().max())
        assert moved > 0.1, (name, moved)
        expected["picture_effect"] = round(moved, 3)
    expected.update(
        eoc=eoc,
        media=media,
        cross_attn_every=every,
        vision_heads=options["vision_heads"],
        family=family,
        dtype=str(options["dtype"]),
    )
    common.write_json(folder / "expected.json", expected, None)
    common.readable(folder)
    return expected


def encode_videos(model, media, rows):
    """What Flamingo._encode_vision_x does, for media of any number of frames. The table of a frame's place is
    stretched over more frames than it has rows, as the paper does it."""
    perceiver, latents = model.perceiver, []
    table = perceiver.frame_embs
    for frames in media:
        if table is not None and len(frames) > len(table):
            stretched = torch.nn.functional.interpolate(
                table.T[None], size=len(frames), mode="linear", align_corners=True
            )
            perceiver.frame_embs = torch.nn.Parameter(stretched[0].T)
        latents.append(perceiver(model.vision_encoder(frames)[1][None, None]))
        perceiver.frame_embs = table
    latents = torch.cat(latents, dim=1).expand(rows, -1, -1, -1)
    for layer in model.lang_encoder._get_decoder_layers():
        layer.condition_vis_x(latents)


def check_generate(model, expected, ids, pictures, media):
    """open_flamingo's own cached generation must agree with the full recomputation."""
    tokens = torch.tensor([ids])
    arguments = dict(
        attention_mask=torch.ones_like(tokens),
        eos_token_id=None,
        pad_token_id=0,
        do_sample=False,
        suppress_tokens=[media],
    )
    model.lang_encoder.generation_config.eos_token_id = None
    with torch.no_grad():
        greedy = model.generate(pictures, tokens, max_new_tokens=12, **arguments)[0, len(ids) :].tolist()
        beam = model.generate(pictures, tokens, max_new_tokens=8, num_beams=3, length_penalty=0.0, **arguments)
    for kind, got in (("greedy", greedy), ("beam3", beam[0, len(ids) :].tolist())):
        if got != expected[kind]:
            print(f"  generate's {kind} differs: {got} recomputed {expected[kind]}")


def all_cases(output, only):
    for name in CASES:
        if only and only not in name:
            continue
        for seed in range(10, 400, 10):
            expected = make(output / "cases" / name, name, seed)
            if expected:
                break
        print(
            f"{name}: seed {seed}, {len(expected['token_ids'])} tokens, largest logit {expected['largest_logit']}, "
            f"pictures move logits by {expected.get('picture_effect')}",
            flush=True,
        )
    cases = output / "cases"
    every = {
        p.name: json.loads((p / "expected.json").read_text())["cross_attn_every"]
        for p in sorted(cases.iterdir())
        if p.name.startswith("open_flamingo") and (p / "expected.json").exists()
    }
    common.write_json(cases / "every.json", every)
