"""What the makers of golden cases share: tokenizers, pictures, random weights, greedy and beam search."""

import functools
import json
import math
import shutil

import numpy
import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CORPUS = (
    "a photo of a small red fox on a green mat . the quick brown dog jumps over the lazy cat . "
    "Question: what is in the picture? Short answer: two dogs and a house. Output: a large yellow bird in water . "
    "User: describe this image. Assistant: there is a blue car. Instruction: provide an answer to the question. "
    "Use the image to answer. the cat is on the mat, the dog is in the house, and the bird is over the car. "
)
MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]
KERNELS = "-kernels"  # cases so named run on the kernels too: widths are multiples of 16, weights are settled


def bpe(size, specials, added=(), prefix=None, pairs=True):
    """tokenizer.json (as a dict) of a byte-level BPE of `size` tokens that begins with `specials`.

    `added` tokens follow the vocabulary, `prefix` is put in front by the post-processor;
    without `pairs` merges are written as strings, as tokenizers before 0.20 did.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False, min_frequency=1
    )
    tokenizer.train_from_iterator([CORPUS] * 4, trainer)
    tokenizer.add_special_tokens(list(added))
    data = json.loads(tokenizer.to_str())
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in data["model"]["merges"]]
    data["model"]["merges"] = [list(merge) for merge in merges] if pairs else [" ".join(merge) for merge in merges]
    if prefix:
        ids = {token["content"]: token["id"] for token in data["added_tokens"]}
        data["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": prefix, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {prefix: {"id": prefix, "ids": [ids[prefix]], "tokens": [prefix]}},
        }
    return data


def tokenizer_of(data):
    """The tokenizers library's object for such a dict, whichever way the installed version reads merges."""
    try:
        return Tokenizer.from_str(json.dumps(data))
    except Exception:
        data = json.loads(json.dumps(data))
        data["model"]["merges"] = [" ".join(merge) for merge in data["model"]["merges"]]
        return Tokenizer.from_str(json.dumps(data))


def write_json(path, value, indent=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def picture(path, kind, seed):
    """Draws a small picture; kind is (mode, width, height)."""
    mode, width, height = kind
    draw = numpy.random.default_rng(seed)
    corner = draw.integers(0, 256, (2, 2, 3), dtype=numpy.uint8)
    image = Image.fromarray(corner).resize((width, height), Image.BILINEAR)
    canvas = ImageDraw.Draw(image)
    for _ in range(4):
        x, y = int(draw.integers(0, width)), int(draw.integers(0, height))
        box = (x, y, x + int(draw.integers(3, max(4, width // 2))), y + int(draw.integers(3, max(4, height // 2))))
        shape = canvas.ellipse if draw.random() < 0.5 else canvas.rectangle
        shape(box, fill=tuple(int(c) for c in draw.integers(0, 256, 3)))
    if mode == "RGBA":
        alpha = numpy.add.outer(numpy.arange(height) * 3, numpy.arange(width) * 5) % 256
        image.putalpha(Image.fromarray(alpha.astype(numpy.uint8)))
    elif mode == "P":
        image = image.quantize(16)
    elif mode != "RGB":
        image = image.convert(mode)
    image.save(path, optimize=True)


def normalised(image):
    pixels = numpy.asarray(image.convert("RGB"), dtype=numpy.float32) / numpy.float32(255)
    pixels = (pixels - numpy.array(MEAN, numpy.float32)) / numpy.array(STD, numpy.float32)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def idefics_pixels(path, size):
    """As transformers 4.44.2: transparency over white, then stretched (5.17 drops the alpha channel instead)."""
    image = Image.open(path)
    if image.mode != "RGB":
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255))
        image = Image.alpha_composite(white, rgba).convert("RGB")
    return normalised(image.resize((size, size), Image.BICUBIC))


def open_clip_pixels(path, size):
    """As open_clip 2.20: shortest side to `size`, centre crop, then RGB."""
    image = Image.open(path)
    width, height = image.size
    shape = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    image = image.resize(shape, Image.BICUBIC)
    left, top = int(round((shape[0] - size) / 2)), int(round((shape[1] - size) / 2))
    return normalised(image.crop((left, top, left + size, top + size)))


def randomise(module, seed, scale=0.25, embedding=0.6, gates=0.8, skip=()):
    """Norm weights about 1, gates of size about `gates`, everything else normal: no default initialisation is left."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(module.named_parameters()):
        if any(part in name for part in skip):
            continue
        noise = torch.randn(parameter.shape, generator=generator)
        last = name.split(".")[-2] if "." in name else name
        if "gate" in name.split(".")[-1] or "alpha_" in name:
            noise = noise * gates + torch.sign(noise) * 0.3
        elif parameter.ndim == 1 and name.endswith("weight"):
            noise = 1 + 0.3 * noise
        elif "embed" in name or "wte" in last or "latents" in name or "conv1" in name:
            noise = noise * embedding * (0.3 if "patch_embedding" in name or "conv1" in name else 1)
        elif name.endswith(("to_out.weight", "output_proj.weight")):
            noise = noise * scale * min(1, math.sqrt(64 / parameter.shape[-1]))
        else:
            noise = noise * scale
        parameter.data = noise
    return module


def settle(module, seed):
    """Scales as after training, so that rounding to 16 bits does not grow on its way: products keep the size of what
    goes in, norm weights are about 1, gates 0.5 to 1 of either sign, logits spread by about 2."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(module.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if "gate" in name.split(".")[-1] or "alpha_" in name:
            noise = torch.sign(noise) * (0.5 + 0.5 * noise.abs().clamp(max=1))
        elif parameter.ndim < 2:
            noise = name.endswith("weight") + 0.1 * noise
        else:
            noise = noise / math.sqrt(math.prod(parameter.shape[1:]))
            if "patch_embedding" not in name and any(part in name for part in ("embed", "wte", "lm_head", "latents")):
                noise = 2 * noise
        parameter.data = noise
    return module


def weights_of(name, scale=0.25):
    """What gives the modules of a case their weights, and by how much its choices must win."""
    return (settle, 0.1) if name.endswith(KERNELS) else (functools.partial(randomise, scale=scale), 2e-3)


def round_to(module, dtype):
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype).float()


def search(step, ids, forbidden, margin, beams=3, greedy=12, beam=8, processor=None):
    """Greedy and beam search by full recomputation; `step` maps a batch of ids to logits at every position.

    None when two candidates are so close that rounding could swap them. A logits processor of transformers changes
    what may be chosen, as its `generate` has it: logits in greedy search, log-probabilities in beam search.
    """
    with torch.no_grad():
        row, chosen = list(ids), []
        for _ in range(greedy):
            logits = step([row])[0, -1].double()
            if processor:
                logits = processor(torch.tensor([row]), logits[None])[0]
            logits[forbidden] = -math.inf
            best = logits.topk(2)
            if best.values[0] - best.values[1] < margin:
                return None
            chosen.append(int(best.indices[0]))
            row.append(chosen[-1])
        rows, scores = [list(ids)], torch.zeros(1, dtype=torch.double)
        for _ in range(beam):
            scored = step(rows)[:, -1].double().log_softmax(-1)
            if processor:
                scored = processor(torch.tensor(rows), scored)
            scored[:, forbidden] = -math.inf
            total = (scored + scores[:, None]).flatten()
            best = total.topk(beams + 1)
            if best.values[beams - 1] - best.values[beams] < margin:
                return None
            size = scored.shape[1]
            rows = [rows[int(i) // size] + [int(i) % size] for i in best.indices[:beams]]
            scores = best.values[:beams]
        if scores[0] - scores[1] < margin:
            return None
        return chosen, rows[0][len(ids) :]


def expect(step, ids, forbidden, margin):
    """The body of expected.json, or None when the case is too close to call."""
    with torch.no_grad():
        logits = step([ids])[0].double()
    found = search(step, ids, forbidden, margin)
    if found is None:
        return None
    table = logits.log_softmax(-1)
    # A marker may have no row in the output matrix.
    likely = [float(table[i, token]) if token < table.shape[1] else None for i, token in enumerate(ids[1:])]
    logprobs = [None] + [None if value is None else round(value, 6) for value in likely]
    top = logits[-1].topk(5)
    return {
        "token_ids": ids,
        "logprobs": logprobs,
        "greedy": found[0],
        "beam3": found[1],
        "last_top": [int(i) for i in top.indices],
        "last_values": [round(float(v), 6) for v in top.values],
        "largest_logit": round(float(logits.abs().max()), 3),
    }


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def readable(folder):
    """safetensors files are written for the owner alone; repositories keep ordinary modes."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o644)


def prompt_parts(folder, prompt, seed):
    """Writes prompt.json and its pictures. A prompt is a list of strings, of (mode, width, height), and of lists of
    these, which are the frames of a video. The parts, and the files of each picture or video."""
    parts, media = [], []

    def drawn(kind):
        count = sum(map(len, media)) + len(files)
        name = "abcdefghijklmnopqrstuvwxyz"[count] + ".png"
        picture(folder / name, kind, seed * 31 + count)
        files.append(folder / name)
        return name

    for item in prompt:
        if isinstance(item, str):
            parts.append({"text": item})
            continue
        files = []
        if isinstance(item, list):
            parts.append({"video": [drawn(kind) for kind in item]})
        else:
            parts.append({"image": drawn(item)})
        media.append(files)
    write_json(folder / "prompt.json", parts)
    return parts, media
