"""Llama-3.2-Vision cases: by transformers 5.17, changed to Meta's rule; 4.45.2 adds what it says of them.

Published code disagrees in two places, and the weights were trained with Meta's own (`llama_models`): the vision states
that are handed on besides the last are the inputs of the named layers (transformers since 4.56: their outputs), and a
token that sees no image passes a gated block unchanged (transformers: its attention goes to all tokens of all images).
What the versions of transformers say as they are stands in `others` of an expected.json.
"""

import contextlib
import copy
import functools
import json

import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import MllamaConfig, MllamaForConditionalGeneration
from transformers.models.mllama.modeling_mllama import MllamaRotaryEmbedding
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

import golden_common as common

OLD = transformers.__version__.startswith("4.")
if OLD:
    from transformers.models.mllama.image_processing_mllama import MllamaImageProcessor as Processor
else:
    from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil as Processor

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BEGIN, IMAGE = "<|begin_of_text|>", "<|image|>"
SPECIALS = [
    BEGIN, "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>",
    "<|eot_id|>", "<|python_tag|>",
]  # fmt: skip
VOCABULARY = 384
RGB, RGBA, GREY, PALETTE = "RGB", "RGBA", "L", "P"
LLAMA3 = {
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 64,
    "rope_type": "llama3",
}
USER, ASSISTANT = (f"<|start_header_id|>{role}<|end_header_id|>\n\n" for role in ("user", "assistant"))
MARGIN = 0.05  # by which a rule must move some log-probability

# name: (case options, changes of text_config, changes of vision_config, prompt)
CASES = {
    "mllama-base": (
        {},
        {},
        {},
        [
            "A question about two images: ",
            (RGB, 100, 90),
            "what is in the picture? Answer: a red house.",
            (RGBA, 30, 80),
            "If I had to write a haiku for this one, it would be:",
        ],
    ),
    "mllama-4.45-sharded": (
        {"dtype": torch.bfloat16, "shard": "60KB", "spelled": "in brief", "chat": True, "batch": True},
        {"hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 2, "cross_attention_layers": [1, 3]},
        {"image_size": 56, "intermediate_layers_indices": [1, 2, 3]},
        [f"{BEGIN}{USER}", (RGB, 150, 60), f"Describe this image in two sentences.<|eot_id|>{ASSISTANT}"],
    ),
    "mllama-mqa": (
        {"dtype": torch.float16, "rope": False},
        {
            "num_key_value_heads": 1,
            "num_hidden_layers": 7,
            "cross_attention_layers": [0, 3, 5],
            "rms_norm_eps": 1e-6,
        },
        {"image_size": 28, "norm_eps": 1e-6, "intermediate_layers_indices": [1, 2, 3]},
        ["Two dogs", (GREY, 57, 30), (PALETTE, 20, 61), " and a house, 12345 times; this one's", (RGB, 28, 28)],
    ),
    "mllama-text-only": (
        {"dtype": torch.float16},
        {"hidden_size": 36, "num_attention_heads": 3, "num_key_value_heads": 3},
        {},
        ["Instruction: provide an answer.\n\n", "  User's question: a café 猫? Answer:"],
    ),
    "mllama-in-memory": (
        {"in_memory": True},
        {},
        {
            "image_size": 28,
            "patch_size": 7,
            "max_num_tiles": 2,
            "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
            "hidden_act": "quick_gelu",
            "num_global_layers": 1,
        },
        ["Look:", (RGB, 44, 33), "Question: what is it? Answer:", (RGBA, 20, 33), "Short answer:"],
    ),
    "mllama-one-tile": (
        {"dtype": torch.float16},
        {"hidden_size": 12, "num_attention_heads": 2, "num_hidden_layers": 3, "cross_attention_layers": [1]},
        {"image_size": 28, "hidden_size": 12, "max_num_tiles": 1, "supported_aspect_ratios": [[1, 1]]},
        ["Output: ", (RGB, 40, 20), "a small red fox. Output:"],
    ),
    "mllama-image-first": (
        {"dtype": torch.bfloat16, "spelled": "at length"},
        {"cross_attention_layers": [2, 4]},
        {"intermediate_layers_indices": [1]},
        [(RGB, 9, 200), "If I had to write a haiku for this one"],
    ),
    "mllama-kernels": (
        {"dtype": torch.bfloat16, "chat": True},
        {"hidden_size": 64, "intermediate_size": 96},
        {"hidden_size": 48, "intermediate_size": 96, "attention_heads": 3},
        [
            "A question about two images: ",
            (RGB, 100, 90),
            "what is in the picture? Answer: a red house.",
            (RGBA, 60, 40),
            (GREY, 20, 60),
            "what are these? Short answer:",
        ],
    ),
    "mllama-80-kernels": (
        {"dtype": torch.float16},
        {
            "hidden_size": 128,
            "intermediate_size": 96,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "num_hidden_layers": 3,
            "cross_attention_layers": [1],
        },
        {
            "hidden_size": 80,
            "intermediate_size": 96,
            "attention_heads": 1,
            "image_size": 112,
            "num_hidden_layers": 3,
            "num_global_layers": 1,
            "intermediate_layers_indices": [1, 2],
            "max_num_tiles": 2,
            "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
        },
        ["Output: ", (RGB, 200, 100), "a small red fox. Output:"],
    ),
}


def configuration(options, text, vision):
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": 40,
        "intermediate_size": 56,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "cross_attention_layers": [1, 4],
        "max_position_embeddings": 512,
        "bos_token_id": VOCABULARY - 8,
        "eos_token_id": VOCABULARY - (2 if options.get("chat") else 7),
        "pad_token_id": VOCABULARY - 6,
        **text,
    }
    if options.get("rope", True):
        text["rope_parameters"] = {**LLAMA3, "rope_theta": 500000.0}
    vision = {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 4,
        "num_global_layers": 2,
        "attention_heads": 3,
        "image_size": 42,
        "patch_size": 14,
        "intermediate_layers_indices": [1, 3],
        **vision,
    }
    vision["vision_output_dim"] = vision["hidden_size"] * (1 + len(vision["intermediate_layers_indices"]))
    return MllamaConfig(text_config=text, vision_config=vision, image_token_index=VOCABULARY)


def spelled_in_brief(values):
    """A config.json of 4.x: fields of the two parts that are as the classes have them are left out."""
    values = copy.deepcopy(values)
    values["transformers_version"], values["torch_dtype"] = "4.45.2", values.pop("dtype")
    text = values["text_config"]
    rope = text.pop("rope_parameters")
    text["rope_theta"] = rope.pop("rope_theta")
    text["rope_scaling"] = rope
    usual = MllamaConfig().to_dict()
    for part in ("text_config", "vision_config"):
        kept = {key: value for key, value in values[part].items() if value != usual[part].get(key, common)}
        values[part] = {**kept, "model_type": values[part]["model_type"]}
    values["text_config"].pop("tie_word_embeddings", None)
    return values


def tokenizer(old):
    """tokenizer.json as Llama 3's: byte-level BPE with its expression, special tokens behind the vocabulary."""
    made = Tokenizer(models.BPE(ignore_merges=old))
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIALS), initial_alphabet=alphabet, show_progress=False, min_frequency=1
    )
    made.train_from_iterator([common.CORPUS] * 4, trainer)
    made.add_special_tokens([*SPECIALS, IMAGE])
    data = json.loads(made.to_str())
    if old:  # as tokenizers before 0.20 wrote them
        data["model"]["merges"] = [" ".join(merge) for merge in data["model"]["merges"]]
    begin, text = {"SpecialToken": {"id": BEGIN, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    other = {"Sequence": {"id": "B", "type_id": 1}}
    template = {
        "type": "TemplateProcessing",
        "single": [begin, text],
        "pair": [begin, text, {"SpecialToken": {"id": BEGIN, "type_id": 1}}, other],
        "special_tokens": {BEGIN: {"id": BEGIN, "ids": [made.token_to_id(BEGIN)], "tokens": [BEGIN]}},
    }
    bytes_of = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    data["post_processor"] = {"type": "Sequence", "processors": [bytes_of, template]}
    return data


def ids_of(parts, tokenizer):
    """`<|begin_of_text|>` behind leading markers as MllamaProcessor inserts it, and once more in front unless the text
    begins with it."""
    text = "".join(part.get("text", IMAGE) for part in parts)
    if BEGIN not in text:
        rest = text
        while rest.startswith(IMAGE):
            rest = rest[len(IMAGE) :]
        text = IMAGE * ((len(text) - len(rest)) // len(IMAGE)) + BEGIN + rest
    return tokenizer.encode(text if text.startswith(BEGIN) else BEGIN + text, add_special_tokens=False).ids


class Prompt:
    """Token ids and the images of one prompt, as the model takes them."""

    def __init__(self, folder, name):
        model, self.parts = folder / "model", json.loads((folder / name).read_text())
        settings = json.loads((model / "preprocessor_config.json").read_text())
        data = json.loads((model / "tokenizer.json").read_text())
        self.most, self.ids = settings["max_image_tiles"], ids_of(self.parts, common.tokenizer_of(data))
        files = [folder / part["image"] for part in self.parts if "image" in part]
        processor = Processor(**{key: settings[key] for key in ("size", "max_image_tiles", "image_mean", "image_std")})
        found = processor([[Image.open(file) for file in files]], return_tensors="pt") if files else {}
        self.images = {key: found[key] for key in ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask") if found}
        self.tiles = found["num_tiles"][0] if files else []

    def mask(self, length, images=None):
        """(1, length, images, tiles): new tokens see what the last of the prompt sees."""
        spans = get_cross_attention_token_mask(self.ids, VOCABULARY)
        mask = convert_sparse_cross_attention_mask_to_dense([spans], [self.tiles], self.most, len(self.ids))
        mask = torch.from_numpy(mask)
        if images:
            mask = torch.nn.functional.pad(mask, (0, 0, 0, images - mask.shape[2]))
        return torch.cat([mask, mask[:, -1:].expand(-1, length - len(self.ids), -1, -1)], 1)

    def step(self, model, rows):
        """Logits of rows that begin with the prompt."""
        tokens = torch.tensor(rows)
        images = {key: value.expand(len(rows), *value.shape[1:]) for key, value in self.images.items()}
        if images:
            images["cross_attention_mask"] = self.mask(tokens.shape[1]).expand(len(rows), -1, -1, -1)
        mask = torch.ones_like(tokens)
        return model(input_ids=tokens, attention_mask=mask, use_cache=False, **images).logits.float()


def logprobs(logits, ids):
    table = logits.double().log_softmax(-1)
    return [None] + [round(float(row[token]), 6) if token < len(row) else None for row, token in zip(table, ids[1:])]


def apart(a, b):
    return max(abs(x - y) for x, y in zip(a, b, strict=True) if x is not None)


@contextlib.contextmanager
def metas_rule(model, states=True, unseen=True):
    """Makes a model of 5.17 compute what Meta's code computes."""
    vision, handles = model.model.vision_model, []
    before = vision.intermediate_layers_indices
    if states:
        assert min(before) > 0
        vision.intermediate_layers_indices = [index - 1 for index in before]
    for layer in model.model.language_model.layers if unseen else []:
        if hasattr(layer, "cross_attn"):
            sees = {}

            def keep(_, positional, named, sees=sees):
                sees["rows"] = named["full_text_row_masked_out_mask"][:, 0]

            def blank(_, positional, result, sees=sees):
                return result[0] * sees["rows"].to(result[0].dtype), *result[1:]

            handles.append(layer.register_forward_pre_hook(keep, with_kwargs=True))
            handles.append(layer.cross_attn.register_forward_hook(blank))
    try:
        yield model
    finally:
        vision.intermediate_layers_indices = before
        for handle in handles:
            handle.remove()


def settled(model, seed):
    """common.settle, with tables of positions that count."""
    common.settle(model, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    width = model.config.vision_config.hidden_size
    for name, parameter in sorted(model.named_parameters()):
        if "positional_embedding" in name and name.endswith("embedding.weight"):
            parameter.data = torch.randn(parameter.shape, generator=generator) * 2 / width**0.5
    return model


def save(model, folder, options):
    """The model in its files, as the case wants them."""
    dtype = options.get("dtype", torch.float32)
    common.round_to(model, dtype)  # the parameters alone: .to(dtype) would round the rotary frequencies too
    stored = copy.deepcopy(model).to(dtype)
    stored.save_pretrained(folder, **(dict(max_shard_size=options["shard"]) if "shard" in options else {}))
    if options.get("in_memory"):
        save_file(stored.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    path = folder / "config.json"
    values = json.loads(path.read_text())
    if not options.get("rope", True):
        values["text_config"].pop("rope_parameters")
    common.write_json(path, spelled_in_brief(values) if options.get("spelled") else values, 2)
    text, vision = model.config.text_config, model.config.vision_config
    ends = [VOCABULARY - 7, VOCABULARY - 3, VOCABULARY - 2] if options.get("chat") else text.eos_token_id
    common.write_json(
        folder / "generation_config.json",
        {
            "_from_model_config": True,
            "bos_token_id": text.bos_token_id,
            "do_sample": True,
            "eos_token_id": ends,
            "pad_token_id": text.pad_token_id,
            "temperature": 0.6,
            "top_p": 0.9,
            "transformers_version": transformers.__version__,
        },
    )
    common.write_json(folder / "tokenizer.json", tokenizer(options.get("spelled") is not None))
    common.write_json(
        folder / "tokenizer_config.json",
        {
            "bos_token": BEGIN,
            "eos_token": "<|eot_id|>" if options.get("chat") else "<|end_of_text|>",
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": 131072,
            "pad_token": "<|finetune_right_pad_id|>",
            "tokenizer_class": "PreTrainedTokenizerFast" if options.get("spelled") else "TokenizersBackend",
        },
    )
    side, most = vision.image_size, vision.max_num_tiles
    processor = Processor(
        size={"height": side, "width": side}, max_image_tiles=most, image_mean=common.MEAN, image_std=common.STD
    )
    processor.save_pretrained(folder)


def make(folder, name, seed):
    options, text, vision, kinds = CASES[name]
    common.fresh(folder)
    common.prompt_parts(folder, kinds, sum(name.encode()))
    torch.manual_seed(seed)
    weights, margin = common.weights_of(name, scale=0.3)
    if weights is common.settle:
        weights = settled
    model = weights(MllamaForConditionalGeneration(configuration(options, text, vision)), seed).eval()
    save(model, folder / "model", options)
    prompt = Prompt(folder, "prompt.json")

    with metas_rule(model):
        expected = common.expect(functools.partial(prompt.step, model), prompt.ids, [], margin)
        if expected is None:
            return None
        if 0 not in model.config.text_config.cross_attention_layers:  # there 5.17 counts images for tokens
            check_generate(model, prompt, expected)
    if prompt.tiles and not effects(model, prompt, expected):
        return None
    if prompt.tiles:
        expected["others"] = {f"transformers {transformers.__version__}": as_it_is(model, prompt)}
    if options.get("batch"):
        expected["batch"] = batch(model, folder, prompt)
    if name.endswith(common.KERNELS):
        expected["rounding"] = rounding(folder, prompt, expected)
    expected["family"] = "mllama"
    expected["written_by"] = f"transformers {transformers.__version__}, changed to Meta's rule"
    common.write_json(folder / "expected.json", expected, None)
    common.readable(folder)
    return expected


@torch.no_grad()
def effects(model, prompt, expected):
    """Whether images, tiles and each half of the rule move the log-probabilities; by how much is noted."""
    moved = {}
    with metas_rule(model):
        pixels = prompt.images["pixel_values"]
        for key, others in (("picture_effect", pixels.flip(1, 4)), ("tile_effect", pixels.flip(3))):
            prompt.images["pixel_values"] = others
            moved[key] = apart(logprobs(prompt.step(model, [prompt.ids])[0], prompt.ids), expected["logprobs"])
        prompt.images["pixel_values"] = pixels
    for key, half in (("states_effect", {"states": False}), ("unseen_effect", {"unseen": False})):
        with metas_rule(model, **half):
            moved[key] = apart(logprobs(prompt.step(model, [prompt.ids])[0], prompt.ids), expected["logprobs"])
    expected.update((key, round(value, 3)) for key, value in moved.items())
    return min(moved.values()) > MARGIN


@torch.no_grad()
def as_it_is(model, prompt):
    """What the installed version of transformers says."""
    step = functools.partial(prompt.step, model)
    greedy, beam = common.search(step, prompt.ids, [], -1)
    return {"logprobs": logprobs(step([prompt.ids])[0], prompt.ids), "greedy": greedy, "beam3": beam}


@torch.no_grad()
def batch(model, folder, prompt):
    """The prompt beside one of two images (mate.json): in transformers the tokens before its image say something else
    then, with Meta's rule they do not."""
    parts = [{"text": "Two images:"}, {"image": "a.png"}, {"image": "a.png"}, {"text": "are they alike? Answer:"}]
    common.write_json(folder / "mate.json", parts)
    mate = Prompt(folder, "mate.json")
    length = max(len(prompt.ids), len(mate.ids))
    padded = [(row.ids + [VOCABULARY - 6] * length)[:length] for row in (prompt, mate)]
    images = {}
    for key, value in mate.images.items():
        mine = prompt.images[key]
        more = [0] * (2 * (value.dim() - 2)) + [0, value.shape[1] - mine.shape[1]]
        images[key] = torch.cat([torch.nn.functional.pad(mine, more), value])
    images["aspect_ratio_mask"][0, 1:, 0] = 1  # as the processor has it for images that are not there
    masks = [row.mask(length, len(mate.tiles)) for row in (prompt, mate)]
    attention = torch.tensor([[1] * len(row.ids) + [0] * (length - len(row.ids)) for row in (prompt, mate)])
    arguments = dict(input_ids=torch.tensor(padded), attention_mask=attention, cross_attention_mask=torch.cat(masks))

    def both():
        alone = logprobs(prompt.step(model, [prompt.ids])[0], prompt.ids)
        beside = logprobs(model(**arguments, **images, use_cache=False).logits[0], prompt.ids)
        return alone, beside

    alone, beside = both()
    assert apart(alone, beside) > MARGIN, apart(alone, beside)
    with metas_rule(model):
        assert apart(*both()) < 1e-4, apart(*both())
    return {"alone": alone, "beside": beside}


@torch.no_grad()
def rounding(folder, prompt, expected):
    """By how much PyTorch misses the log-probabilities of single precision where all is stored in 16 bits."""
    found = {}
    for name, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16)):
        model = MllamaForConditionalGeneration.from_pretrained(folder / "model", dtype=dtype).eval()
        with metas_rule(model):
            logits = prompt.step(model, [prompt.ids])[0]
        found[name] = round(apart(logprobs(logits, prompt.ids), expected["logprobs"]), 5)
    return found


@torch.no_grad()
def check_generate(model, prompt, expected):
    """The reference's cached generation must agree with the full recomputation."""
    tokens = torch.tensor([prompt.ids])
    arguments = dict(attention_mask=torch.ones_like(tokens), do_sample=False, pad_token_id=0, use_cache=True)
    if prompt.tiles:
        arguments.update(prompt.images, cross_attention_mask=prompt.mask(len(prompt.ids)))
    model.generation_config.eos_token_id = None
    for kind, more in (("greedy", dict(max_new_tokens=12)), ("beam3", dict(max_new_tokens=8, num_beams=3))):
        found = model.generate(tokens, **arguments, **more, **({"length_penalty": 0.0} if "num_beams" in more else {}))
        found = found[0, len(prompt.ids) :].tolist()
        if found != expected[kind]:
            print(f"  generate's {kind} differs: {found} recomputed {expected[kind]}")


def add_old(folder, name):
    """What 4.45.2 makes of a folder; and its own config.json, where that is to be at length, as published."""
    expected = json.loads((folder / "expected.json").read_text())
    model, config = folder / "model", MllamaConfig.from_pretrained(folder / "model")
    spelled, values = CASES[name][0].get("spelled"), json.loads((model / "config.json").read_text())
    if not spelled:  # 4.45 knows the older spelling of these alone
        rope = dict(values["text_config"].get("rope_parameters", {"rope_type": "default"}))
        config.text_config.rope_theta = rope.pop("rope_theta", 500000.0)
        config.text_config.rope_scaling = rope
    loaded = MllamaForConditionalGeneration.from_pretrained(model, config=config, torch_dtype=torch.float32)
    if spelled == "at length":
        config.torch_dtype = "bfloat16"
        config.save_pretrained(model)
    if "others" in expected and not CASES[name][0].get("in_memory"):
        says = as_it_is(loaded.eval(), Prompt(folder, "prompt.json"))
        expected["others"][f"transformers {transformers.__version__}"] = says
        common.write_json(folder / "expected.json", expected, None)


def masks():
    """Which images each token sees, as the first of them and how many: every row of 7 tokens, and longer ones."""
    draw = torch.Generator().manual_seed(1)
    rows = [[9 if number >> place & 1 else 7 for place in range(7)] for number in range(128)]
    rows += [[9 if number < 3 else number for number in torch.randint(0, 9, (29,), generator=draw).tolist()]]
    cases = []
    for row in rows:
        spans, images = get_cross_attention_token_mask(row, 9), row.count(9)
        dense = convert_sparse_cross_attention_mask_to_dense([spans], [[1] * images], 1, len(row))[0, :, :, 0]
        seen = [[image for image in range(images) if token[image]] for token in dense]
        assert all(images == list(range(images[0], images[0] + len(images))) for images in seen if images)
        first = [images[0] if images else 0 for images in seen]
        cases.append({"ids": row, "first": first, "images": [len(images) for images in seen]})
    return cases


def frequencies():
    """Angles of a position, pair by pair, as bits of float32."""
    rows = []
    for width, base, rope in (
        (128, 500000.0, {**LLAMA3, "original_max_position_embeddings": 8192}),
        (64, 10000.0, {**LLAMA3, "factor": 32.0, "high_freq_factor": 2.5, "low_freq_factor": 0.5}),
        (10, 500000.0, LLAMA3),
        (128, 500000.0, {"rope_type": "default"}),
    ):
        text = {"hidden_size": 2 * width, "num_attention_heads": 2, "rope_parameters": {**rope, "rope_theta": base}}
        found = MllamaRotaryEmbedding(MllamaConfig(text_config=text).text_config).inv_freq
        bits = [f"{value:08x}" for value in found.numpy().view("uint32").tolist()]
        rows.append({"head_width": width, "rope_theta": base, **rope, "frequencies": bits})
    return rows


def all_cases(output, only):
    transformers.utils.logging.disable_progress_bar()
    if not OLD and not only:
        semantics = {"image": 9, "masks": masks(), "frequencies": frequencies()}
        common.write_json(output / "semantics" / "mllama.json", semantics, None)
    for name in CASES:
        folder = output / "cases" / name
        if only and only not in name:
            continue
        if OLD:
            add_old(folder, name)
            continue
        for seed in range(1, 300):
            expected = make(folder, name, seed)
            if expected:
                break
        effects = {key: value for key, value in expected.items() if key.endswith("_effect") or key == "rounding"}
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) // 1000
        print(
            f"{name}: seed {seed}, {len(expected['token_ids'])} tokens, largest logit {expected['largest_logit']}, "
            f"{size} kB, {effects}"
        )
