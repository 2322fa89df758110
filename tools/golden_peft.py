"""An adapter of `peft` for the IDEFICS model of another case: the folder that it saves, and what the model says with it."""

import json
import shutil

import torch
from transformers import IdeficsForVisionText2Text

import golden_common as common
import golden_idefics as idefics

# name: the case whose model and prompt it has, then the adapter
CASES = {
    "peft-idefics": (
        "idefics-plain",
        {
            "r": 3,
            "lora_alpha": 9,
            "target_modules": ["q_proj", "gate_proj", "o_proj"],
            "rank_pattern": {"gated_cross_attn_layers.0.cross_attn.q_proj": 5},
            "alpha_pattern": {"gate_proj": 4},
        },
    ),
}


def make(output, name, seed):
    import peft

    base, settings = CASES[name]
    source, folder = output / base, common.fresh(output / name)
    for file in [source / "prompt.json", *sorted(source.glob("*.png"))]:
        shutil.copy(file, folder)
    # save_pretrained would read a card of the base model from the hub.
    model = IdeficsForVisionText2Text.from_pretrained(source / "model", dtype=torch.float32).eval()
    model = peft.get_peft_model(model, peft.LoraConfig(**settings)).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in (p for n, p in model.named_parameters() if ".lora_" in n):
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    path = folder / "adapter" / "adapter_config.json"
    saved = json.loads(path.read_text())
    saved["base_model_name_or_path"] = base
    saved["target_modules"] = sorted(saved["target_modules"])
    common.write_json(path, saved)

    parts = json.loads((folder / "prompt.json").read_text())
    files = [folder / part["image"] for part in parts if "image" in part]
    tokenizer = common.tokenizer_of(json.loads((source / "model" / "tokenizer.json").read_text()))
    fake, image = (tokenizer.token_to_id(token) for token in ("<fake_token_around_image>", "<image>"))
    ids = idefics.ids_of(parts, tokenizer, False)
    size = json.loads((source / "model" / "config.json").read_text())["vision_config"]["image_size"]
    pixels = torch.stack([common.idefics_pixels(file, size) for file in files])[None]

    def step(rows):
        tokens = torch.tensor(rows)
        prompt = idefics.mask_of(torch.tensor([ids]), len(files), image)
        mask = torch.cat([prompt, prompt[:, -1:].expand(-1, tokens.shape[1] - len(ids), -1)], 1)
        return model(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            use_cache=False,
            pixel_values=pixels.expand(len(rows), -1, -1, -1, -1),
            image_attention_mask=mask.expand(len(rows), -1, -1),
        ).logits

    expected = common.expect(step, ids, [fake, image], 2e-3)
    if expected is None:
        return None
    expected["base"] = base
    common.write_json(folder / "expected.json", expected, None)
    common.readable(folder)
    return expected


def all_cases(output, only):
    for name in CASES:
        if only in name:
            seed = next(seed for seed in range(100) if make(output / "cases", name, seed) is not None)
            print(name, "seed", seed)
