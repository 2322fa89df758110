"""Otter and the Flamingo of its repository, as their folders are: language model, CLIP and trained parts under the
names of those classes, which are restated in golden_restated.py; images by transformers' own CLIPImageProcessor."""

import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, MptConfig, MptForCausalLM
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import golden_common as common
import golden_restated as restated
from golden_v1 import Lora, blocks_of, tower_of, tower_state, vision_config

TOKENS = 280  # of the tokenizer
ROWS = 292  # of the embedding, which training leaves as it is
EOC = "<|endofchunk|>"
RGB, GREY, PALETTE, RGBA = "RGB", "L", "P", "RGBA"
LANGUAGES = {
    "mpt": ("transformer.blocks", ["<|endoftext|>", "<|padding|>"], None, ["Wqkv"]),
    "llama": ("model.layers", ["<unk>", "<s>", "</s>"], "<s>", ["q_proj", "v_proj"]),
}
SHOTS = [
    (RGB, 31, 28),  # a margin of 3, whose half is rounded down
    "User: what is in the picture? GPT:<answer> a red fox." + EOC,
    (RGBA, 28, 47),
    "User: what is in the picture? GPT:<answer>",
]
DEFAULTS = {
    "family": "otter",
    "language": "mpt",
    "layers": 4,
    "every": 2,
    "width": 16,
    "lm": {},
    "image": 28,
    "vision_width": 16,
    "vision_heads": 2,
    "latents": 5,
    "depth": 2,
    "frames": None,
    "files": "safetensors",  # or "sharded": PyTorch archives with an index
    "tokenizer": True,  # in the folder; else beside it, without the tokens that training added
    "lora": None,
    "prompt": SHOTS,
}
CASES = {
    "otter-mpt": {"files": "sharded"},
    "otter-llama": {"language": "llama", "width": 24, "prompt": [(PALETTE, 40, 33), *SHOTS[1:]]},
    "otter-llama-lora": {"language": "llama", "tokenizer": False, "lora": {"r": 2, "lora_alpha": 8}},
    "otter-mpt-video": {
        "frames": 4,
        "every": 1,
        "layers": 2,
        "prompt": [[(RGB, 40, 31)] * 3, "User: what happens? GPT:<answer>"],
    },
    "otter-mpt-kernels": {
        "layers": 2,
        "width": 32,
        "lm": {"n_heads": 2},
        "image": 112,
        "vision_width": 32,
        "latents": 20,
        "prompt": [(RGB, 115, 112), *SHOTS[1:]],
    },
    "flamingo-hf-llama": {
        "family": "flamingo",
        "language": "llama",
        "prompt": [(GREY, 31, 28), "Output: a red fox." + EOC, (RGB, 28, 47), "Output:"],
    },
}


def language_model(options):
    if options["language"] == "mpt":
        config = MptConfig(
            vocab_size=ROWS, d_model=options["width"], n_layers=options["layers"], **{"n_heads": 4, **options["lm"]}
        )
        config.max_seq_len = 256
        return MptForCausalLM._from_config(config, attn_implementation="eager")
    config = LlamaConfig(
        vocab_size=ROWS,
        hidden_size=options["width"],
        num_hidden_layers=options["layers"],
        num_attention_heads=2,
        intermediate_size=56,
        max_position_embeddings=256,
    )
    return LlamaForCausalLM._from_config(config, attn_implementation="eager")


def text_config(options, language):
    """MPT's as MosaicML wrote it."""
    if options["language"] == "mpt":
        return {
            "architectures": ["MPTForCausalLM"],
            "model_type": "mpt",
            "d_model": options["width"],
            "n_heads": language.config.n_heads,
            "n_layers": options["layers"],
            "expansion_ratio": 4,
            "max_seq_len": 256,
            "vocab_size": ROWS,
            "attn_config": {"alibi": True, "alibi_bias_max": 8, "attn_type": "multihead_attention", "qk_ln": False},
            "no_bias": True,
            "norm_type": "low_precision_layernorm",
            "use_cache": False,
        }
    keys = "hidden_size num_hidden_layers num_attention_heads intermediate_size max_position_embeddings vocab_size"
    config = {key: getattr(language.config, key) for key in keys.split()}
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "use_cache": True, **config}


def add_lora(model, targets, settings, seed):
    """On the language model's own layers, as `get_peft_model` does it, with the published default names."""
    for name, module in list(model.lang_encoder.named_modules()):
        if ".decoder_layer." in name and name.endswith(tuple(targets)):
            parent, _, last = name.rpartition(".")
            lora = Lora(module, settings["r"], settings["lora_alpha"])
            setattr(model.lang_encoder.get_submodule(parent), last, lora)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)


def state_of(model, lora):
    state = {}
    for name, value in model.state_dict().items():
        if name.startswith("vision_encoder."):
            continue
        name = name.replace(".ff.", ".feed_forward.").replace(".base_layer.", ".")
        if name.startswith("perceiver.layers."):
            layer, _, rest = name.removeprefix("perceiver.layers.").partition(".")
            part, _, rest = rest.partition(".")
            name = f"perceiver.layers.{layer}." + ("feed_forward." if part == "1" else "") + rest
        if lora and name.startswith("lang_encoder."):
            name = name.replace("lang_encoder.", "lang_encoder.base_model.model.", 1)
        if name.endswith("lm_head.weight") and model.lang_encoder.config.tie_word_embeddings:
            continue
        state[name] = value.clone().contiguous()
    return state | {"vision_encoder." + name: value for name, value in tower_state(model.vision_encoder).items()}


def save_weights(folder, state, files):
    if files == "safetensors":
        save_file(state, folder / "model.safetensors")
        return
    names = sorted(state)
    shards = [names[::2], names[1::2]]
    files = [f"pytorch_model-0000{i + 1}-of-00002.bin" for i in range(2)]
    for file, names in zip(files, shards):
        torch.save({name: state[name] for name in names}, folder / file)
    index = {name: file for file, names in zip(files, shards) for name in names}
    common.write_json(folder / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": index})


def save_tokenizer(folder, options, added):
    _, specials, prefix, _ = LANGUAGES[options["language"]]
    common.write_json(folder / "tokenizer.json", common.bpe(TOKENS, specials, added, prefix=prefix))
    first = prefix or specials[0]
    end = "</s>" if prefix else specials[0]
    names = {"bos_token": first, "eos_token": end, "unk_token": specials[0], "tokenizer_class": "PreTrainedTokenizerFast"}
    if added:
        names["pad_token"] = "<PAD>"
    common.write_json(folder / "tokenizer_config.json", names)


def make(folder, name, seed):
    options = {**DEFAULTS, **CASES[name]}
    common.fresh(folder)
    parts, media_files = common.prompt_parts(folder, options["prompt"], sum(name.encode()))
    layers, specials, prefix, targets = LANGUAGES[options["language"]]
    answer = ["<answer>"] if options["family"] == "otter" else []
    added = [EOC, "<image>", *answer, "<PAD>"]
    tokenizer = common.tokenizer_of(common.bpe(TOKENS, specials, added, prefix=prefix))
    media = tokenizer.token_to_id("<image>")
    assert media == TOKENS + 1
    ids = tokenizer.encode("".join(part.get("text", "<image>") for part in parts)).ids

    weights, margin = common.weights_of(name)
    language = weights(language_model(options), seed).eval()
    tower = tower_of(options, weights, seed + 1)
    perceiver = restated.Resampler(options["vision_width"], options["depth"], options["latents"], options["frames"])
    weights(perceiver, seed + 2)
    every = options["every"]
    blocks = blocks_of(options, range(every - 1, options["layers"], every), options["vision_width"], weights, seed + 3)
    text = text_config(options, language)
    new = "none" if text["use_cache"] else "last"
    model = restated.Flamingo(tower, perceiver, language, layers, blocks, [media], "preceding", new)
    for part in (language, perceiver, *blocks.values()):
        common.round_to(part, torch.float16)
    if options["lora"]:
        add_lora(model, targets, options["lora"], seed + 4)

    model_folder = folder / ("model" if options["tokenizer"] else "unmerged")
    model_folder.mkdir()
    state = state_of(model, options["lora"])
    # What is merged keeps its format.
    state = {n: v if n.startswith("vision") or options["lora"] else v.half() for n, v in state.items()}
    save_weights(model_folder, state, options["files"])
    config = {
        "model_type": options["family"],
        "cross_attn_every_n_layers": every,
        "use_media_placement_augmentation": True,
        "text_config": text,
        "vision_config": vision_config(tower),
    }
    if options["frames"]:
        config["max_num_frames"] = options["frames"]
    if options["lora"]:
        config["lora_config"] = {**options["lora"], "lora_dropout": 0.05, "target_modules": targets}
    common.write_json(model_folder / "config.json", config)
    if options["tokenizer"]:
        save_tokenizer(model_folder, options, added)
    else:
        save_tokenizer(folder / "tokenizer", options, ())

    size = options["image"]
    processor = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    pixels = lambda file: torch.as_tensor(processor(Image.open(file), return_tensors="pt").pixel_values)[0]
    pictures = [torch.stack([pixels(file) for file in files]) for files in media_files]
    expected = restated.expected_of(model, pictures, ids, [media], margin)
    if expected is None:
        return None
    expected["media"] = media
    common.write_json(folder / "expected.json", expected, None)
    common.readable(folder)
    return expected


def all_cases(output, only):
    restated.search_seeds(output, only, CASES, make, 2000)
