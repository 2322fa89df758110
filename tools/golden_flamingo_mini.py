"""flamingo-mini, as its folders are: OPT or GPT-2 of transformers with blocks before layers, restated in
golden_restated.py under the names of the published class; images by transformers' own CLIPImageProcessor."""

import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import golden_common as common
import golden_restated as restated
from golden_v1 import blocks_of, tower_of, tower_state, vision_config

TOKENS = 280  # of the tokenizer; <EOC> follows
RGB, GREY = "RGB", "L"
EOC = "<EOC>"
SHOTS = [(RGB, 31, 28), "Output: a red fox." + EOC, (GREY, 28, 47), "Output: "]
LAYERS = {"opt": "model.decoder.layers", "gpt2": "transformer.h"}
# Heads of the language models are 64 wide, as in all published ones: the folder does not say.
DEFAULTS = {
    "language": "opt",
    "layers": 2,
    "every": 1,
    "width": 64,
    "embedding": 64,
    "before": True,  # whether OPT norms before a branch, not after adding it
    "activation": "sqrelu",
    "heads": 2,
    "head_width": 12,
    "image": 28,
    "vision_width": 64,
    "vision_heads": 1,
    "latents": 6,
    "depth": 2,
    "prompt": SHOTS,
}
CASES = {
    "flamingo-mini-opt": {},
    "flamingo-mini-opt-350m": {"before": False, "embedding": 32, "every": 2, "layers": 3},
    "flamingo-mini-gpt2": {"language": "gpt2", "activation": "gelu"},
    "flamingo-mini-gpt2-video": {
        "language": "gpt2",
        "every": 2,
        "activation": "relu",
        "prompt": [[(RGB, 40, 31)] * 3, "Output: "],
    },
    "flamingo-mini-gpt2-kernels": {"language": "gpt2", "image": 112, "latents": 16, "head_width": 64, "depth": 1},
    "flamingo-mini-350m-kernels": {
        "before": False,
        "embedding": 32,
        "image": 112,
        "latents": 64,
        "head_width": 64,
    },
}


def language_model(options, rows):
    if options["language"] == "opt":
        config = OPTConfig(
            vocab_size=rows,
            hidden_size=options["width"],
            word_embed_proj_dim=options["embedding"],
            num_hidden_layers=options["layers"],
            num_attention_heads=options["width"] // 64,
            ffn_dim=3 * options["width"],
            max_position_embeddings=128,
            do_layer_norm_before=options["before"],
        )
        return OPTForCausalLM._from_config(config, attn_implementation="eager")
    config = GPT2Config(
        vocab_size=rows,
        n_embd=options["width"],
        n_layer=options["layers"],
        n_head=options["width"] // 64,
        n_positions=128,
    )
    return GPT2LMHeadModel._from_config(config, attn_implementation="eager")


def block_name(rest):
    part, _, rest = rest.partition(".")
    return {"attn_gate": "alpha_attn", "ff_gate": "alpha_ffw", "ff": "ffw"}.get(part, part) + ("." + rest if rest else "")


def state_of(model, options):
    """Under the names of FlamingoModel."""
    container = LAYERS[options["language"]]
    ours = "lang_encoder." + container + "."
    theirs = "flamingo." + container.replace("model.", "lm.", 1).replace("transformer.", "lm.", 1) + "."
    state = {}
    for name, value in model.state_dict().items():
        if name.startswith(ours):
            layer, _, rest = name.removeprefix(ours).partition(".")
            kind, _, rest = rest.partition(".")
            if kind == "gated_cross_attn_layer":
                rest = "xattn_block." + block_name(rest)
            elif int(layer) % options["every"] == 0:
                rest = "lm_block." + rest
            state[f"{theirs}{layer}.{rest}"] = value
        elif name == "lang_encoder.lm_head.weight":
            state["flamingo.lm_head.weight"] = value
        elif name.startswith("lang_encoder."):
            state["flamingo.lm." + name.removeprefix("lang_encoder.").partition(".")[2]] = value
        elif name.startswith("perceiver."):
            rest = name.removeprefix("perceiver.")
            if rest == "frame_embs":
                state["flamingo.resampler.time_pos_emb"] = value[:, None]
            elif rest.endswith("to_kv.weight"):
                for half, part in zip("kv", value.chunk(2)):
                    state["flamingo.resampler." + rest.replace("to_kv", "to_" + half)] = part
            else:
                state["flamingo.resampler." + rest] = value
    tower = {"flamingo.vision_encoder." + name: value for name, value in tower_state(model.vision_encoder).items()}
    return {name: value.clone().contiguous() for name, value in {**state, **tower}.items()}


def make(folder, name, seed):
    options = {**DEFAULTS, **CASES[name]}
    common.fresh(folder)
    parts, media_files = common.prompt_parts(folder, options["prompt"], sum(name.encode()))
    first = "</s>" if options["language"] == "opt" else "<|endoftext|>"
    data = common.bpe(TOKENS, [first], [EOC], prefix=first)
    tokenizer = common.tokenizer_of(data)
    marks = [tokenizer.token_to_id(token) for token in ("<", "\u0120<")]
    marks = [mark for mark in marks if mark is not None]
    ids = tokenizer.encode("".join(part.get("text", "<image>") for part in parts)).ids
    assert sum(id in marks for id in ids) == len(media_files), ids

    weights, margin = common.weights_of(name)
    if not options["before"]:
        weights = common.settle  # norms after each sum would make much of rounding
    language = weights(language_model(options, TOKENS + 1), seed).eval()
    tower = tower_of(options, weights, seed + 1)
    perceiver = restated.Resampler(
        options["vision_width"],
        options["depth"],
        options["latents"],
        4,
        options["heads"],
        options["head_width"],
        options["activation"],
    )
    weights(perceiver, seed + 2)
    blocks = blocks_of(
        options,
        range(0, options["layers"], options["every"]),
        options["vision_width"],
        weights,
        seed + 3,
        heads=options["heads"],
        head_width=options["head_width"],
        activation=options["activation"],
    )
    layers = LAYERS[options["language"]]
    model = restated.Flamingo(
        tower, perceiver, language, layers, blocks, marks, "preceding", "last", class_token=True
    )
    for part in (language, perceiver, tower, *blocks.values()):
        common.round_to(part, torch.float16)

    (folder / "model").mkdir()
    save_file({n: v.half() for n, v in state_of(model, options).items()}, folder / "model" / "model.safetensors")
    config = {
        "architectures": ["FlamingoModel"],
        "lm": {"opt": "facebook/opt-125m", "gpt2": "gpt2"}[options["language"]],
        "clip_model_type": "openai/clip-vit-large-patch14",
        "dim": options["width"],
        "dim_visual": options["vision_width"],
        "xattn_every": options["every"],
        "xattn_heads": options["heads"],
        "xattn_dim_head": options["head_width"],
        "xattn_act": options["activation"],
        "resampler_depth": options["depth"],
        "resampler_heads": options["heads"],
        "resampler_dim_head": options["head_width"],
        "resampler_num_latents": options["latents"],
        "resampler_num_time_embeds": 4,
        "resampler_act": options["activation"],
    }
    common.write_json(folder / "model" / "config.json", config)
    common.write_json(folder / "model" / "tokenizer.json", data)
    names = {"bos_token": first, "eos_token": first, "unk_token": first, "tokenizer_class": "PreTrainedTokenizerFast"}
    common.write_json(folder / "model" / "tokenizer_config.json", names)

    size = options["image"]
    processor = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    pixels = lambda file: torch.as_tensor(processor(Image.open(file), return_tensors="pt").pixel_values)[0]
    pictures = [torch.stack([pixels(file) for file in files]) for files in media_files]
    expected = restated.expected_of(model, pictures, ids, [], margin)
    if expected is None:
        return None
    common.write_json(folder / "expected.json", expected, None)
    common.readable(folder)
    return expected


def all_cases(output, only):
    restated.search_seeds(output, only, CASES, make, 3000)
