"""Cases of OpenFlamingo 0.0.2 and what was trained with it: text sees the image after it (Med-Flamingo's model.pt, loaded
with strict=False), and LoRA beside the weights (Multimodal-GPT). transformers has the language model and CLIP's tower;
resampler, blocks and masks are restated in golden_restated.py. A folder of PEFT is made by `peft` itself."""

import copy
import json

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

import golden_common as common
import golden_restated as restated

TOKENS = 280  # of the tokenizer
SPARE = 12  # rows of the language model beyond them
EOC = "<|endofchunk|>"
RGB, GREY = "RGB", "L"
SPECIALS = ["<unk>", "<s>", "</s>"]
# What Multimodal-GPT trains beside its frozen weights, in the blocks and in LLaMA.
TARGETS = ("to_q", "to_kv", "to_out", "ff.1", "ff.3", "q_proj", "k_proj", "v_proj", "o_proj")

DEFAULTS = {
    "layers": 4,
    "every": 2,
    "width": 24,
    "lm": {"num_attention_heads": 2, "intermediate_size": 56},
    "dtype": torch.float16,
    "image": 28,
    "vision_width": 16,
    "vision_heads": 2,
    "latents": 5,
    "depth": 1,
    "lora": None,
    "peft": None,
    "prompt": [
        "You are shown pictures. ",
        (RGB, 40, 31),
        "Question: what is in the picture? Answer: a red fox." + EOC,
        (GREY, 26, 60),
        (RGB, 33, 33),
        "Question: what is in the picture? Answer:",
    ],
}
CASES = {
    "v1-following": {},
    "v1-following-kernels": {
        "layers": 2,
        "width": 32,
        "lm": {"num_attention_heads": 2, "intermediate_size": 80},
        "image": 112,
        "vision_width": 32,
        "latents": 20,
    },
    "v1-peft": {
        "peft": {
            "r": 4,
            "lora_alpha": 6,
            "target_modules": ["q_proj", "v_proj", "down_proj"],
            "rank_pattern": {"layers.1.self_attn.q_proj": 2},
            "alpha_pattern": {"down_proj": 12},
            "use_rslora": True,
            "modules_to_save": ["lm_head"],
        },
        "prompt": [(RGB, 40, 31), "Output: a red fox." + EOC, (RGB, 33, 33), "Output:"],
    },
    "v1-lora": {
        "dtype": torch.float32,  # what is merged keeps its format
        "lora": {"lora_r": 3, "lora_alpha": 6},
        "prompt": [
            "Below is an instruction. ### Image:\n",
            (RGB, 40, 31),
            "\n\n### Instruction:\nwhat is in the picture?\n\n### Response:\n",
        ],
    },
}


class Lora(nn.Module):
    """A linear layer of `peft`, with its adapter beside it."""

    def __init__(self, layer, rank, alpha):
        super().__init__()
        self.base_layer, self.factor = layer, alpha / rank
        self.lora_A = nn.ModuleDict({"default": nn.Linear(layer.in_features, rank, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(rank, layer.out_features, bias=False)})

    def forward(self, x):
        return self.base_layer(x) + self.factor * self.lora_B["default"](self.lora_A["default"](x))


def add_lora(model, rank, alpha):
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name.endswith(TARGETS):
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, Lora(module, rank, alpha))


def with_peft(folder, language, settings, seed):
    """The language model with an adapter of `peft` in it, whose folder is saved."""
    import peft

    wrapped = peft.get_peft_model(language, peft.LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in wrapped.named_parameters():
        if ".lora_" in name or "modules_to_save" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    wrapped.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    saved = json.loads((folder / "adapter_config.json").read_text())
    saved["target_modules"] = sorted(saved["target_modules"])
    common.write_json(folder / "adapter_config.json", saved)
    return wrapped.base_model.model


def tower_of(options, weights, seed):
    width = options["vision_width"]
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=2,
        num_attention_heads=options["vision_heads"],
        image_size=options["image"],
        patch_size=14,
        hidden_act="quick_gelu",
        attn_implementation="eager",
    )
    tower = weights(CLIPVisionModel(config), seed).eval()
    return tower


def tower_state(tower):
    """Under the names that files have in every version of transformers."""
    state = {name: value.clone().contiguous() for name, value in tower.state_dict().items()}
    return {name if name.startswith("vision_model.") else "vision_model." + name: v for name, v in state.items()}


def vision_config(tower):
    keys = "hidden_size intermediate_size num_hidden_layers num_attention_heads image_size patch_size hidden_act"
    config = {key: getattr(tower.config, key) for key in keys.split()}
    return {"model_type": "clip_vision_model", "layer_norm_eps": 1e-5, "num_channels": 3, **config}


def blocks_of(options, layers, media_width, weights, seed, **more):
    blocks = nn.ModuleDict(
        {str(i): restated.GatedCrossAttentionBlock(options["width"], media_width, **more) for i in layers}
    )
    weights(blocks, seed)
    return {int(i): block for i, block in blocks.items()}


def save_language(folder, language, tokens, dtype):
    copy.deepcopy(language).to(dtype).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    common.write_json(folder / "tokenizer.json", tokens)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "PreTrainedTokenizerFast"}
    common.write_json(folder / "tokenizer_config.json", names)


def save_checkpoint(path, model, dtype):
    """What the released files hold: trained parameters, embeddings and buffers, second names of some included."""
    state = {}
    for name, value in model.state_dict().items():
        if "gated_cross_attn_layer" in name or name.startswith("perceiver.") or "embed_tokens" in name:
            name = name.replace(".base_layer.", ".")
            state[name] = value.to(dtype)
    layers = range(len(model.wrapped[0]))
    state |= {f"lang_encoder.model.layers.{i}.decoder_layer.self_attn.rotary_emb.inv_freq": torch.ones(3) for i in layers}
    state["lang_encoder.old_decoder_blocks.0.input_layernorm.weight"] = torch.ones(4)
    block = "lang_encoder.model.layers.1.gated_cross_attn_layer."
    for name in [name for name in state if name.startswith(block)]:
        state["lang_encoder.gated_cross_attn_layers.1." + name.removeprefix(block)] = state[name]
    torch.save(state, path)


def save_lora(path, model, settings):
    state = {
        "module." + name.replace("lang_encoder.", "lang_encoder.base_model.model.", 1): value
        for name, value in model.state_dict().items()
        if ".lora_" in name
    }
    config = {"lora": True, "lora_target_modules": list(TARGETS), "lora_dropout": 0.05, **settings}
    torch.save({"model_state_dict": state, "tuning_config": config}, path)


def make(folder, name, seed):
    options = {**DEFAULTS, **CASES[name]}
    common.fresh(folder)
    parts, media_files = common.prompt_parts(folder, options["prompt"], sum(name.encode()))
    tokens = common.bpe(TOKENS, SPECIALS, prefix="<s>")
    tokenizer = common.tokenizer_of(tokens)
    tokenizer.add_special_tokens([EOC, "<image>", "<PAD>"])
    media = tokenizer.token_to_id("<image>")
    ids = tokenizer.encode("".join(part.get("text", "<image>") for part in parts)).ids

    weights, margin = common.weights_of(name)
    config = LlamaConfig(
        vocab_size=TOKENS + SPARE,
        hidden_size=options["width"],
        num_hidden_layers=options["layers"],
        max_position_embeddings=256,
        attn_implementation="eager",
        **options["lm"],
    )
    language = weights(LlamaForCausalLM(config), seed).eval()
    save_language(folder / "language", language, tokens, torch.float32)
    language.resize_token_embeddings(tokenizer.get_vocab_size(), mean_resizing=False)
    weights(language.get_input_embeddings(), seed + 4)
    if options["peft"]:
        common.round_to(language.get_input_embeddings(), options["dtype"])
        language = with_peft(folder / "adapter", language, options["peft"], seed + 6)
    tower = tower_of(options, weights, seed + 1)
    save_file(tower_state(tower), folder / "vision.safetensors")
    common.write_json(folder / "config.json", vision_config(tower))
    perceiver = restated.Resampler(options["vision_width"], options["depth"], options["latents"])
    weights(perceiver, seed + 2)
    every, media_width = options["every"], options["vision_width"]
    blocks = blocks_of(options, range(every - 1, options["layers"], every), media_width, weights, seed + 3)
    model = restated.Flamingo(
        tower, perceiver, language, "model.layers", blocks, [media], "following", "none"
    )
    for part in [perceiver, language.get_input_embeddings(), *blocks.values()]:
        common.round_to(part, options["dtype"])
    save_checkpoint(folder / "model.pt", model, options["dtype"])
    expected = {}
    if options["lora"]:
        add_lora(model.lang_encoder, options["lora"]["lora_r"], options["lora"]["lora_alpha"])
        generator = torch.Generator().manual_seed(seed + 5)
        for parameter in (p for n, p in model.named_parameters() if ".lora_" in n):
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
        save_lora(folder / "adapter.pt", model, options["lora"])
    size = options["image"]
    pictures = [torch.stack([common.open_clip_pixels(file, size) for file in files]) for files in media_files]
    found = restated.expected_of(model, pictures, ids, [media], margin)
    if found is None:
        return None
    expected.update(found, media=media, media_mask="following")
    common.write_json(folder / "expected.json", expected, None)
    common.readable(folder)
    return expected


def all_cases(output, only):
    restated.search_seeds(output, only, CASES, make, 1000)
