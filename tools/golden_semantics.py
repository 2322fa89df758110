"""Small vectors for unit tests: tests/data/semantics/*.json, from transformers 4.44.2, torch and tokenizers."""

import json

import numpy
import torch
from torch.nn import functional
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput
from transformers.models.idefics.processing_idefics import image_attention_mask_for_packed_input_ids
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

import golden_common as common
from golden_idefics import Names

END = 2


def listed(tensor, digits=17):
    return json.loads(json.dumps(torch.as_tensor(tensor).tolist()), parse_float=lambda text: round(float(text), digits))


def image_masks():
    fake, image = 60, 61
    rows = [
        [1, 10, fake, image, fake, 11, 12, fake, image, image, fake, 13, END, 14, 15, image, 16],
        [0, 0, 1, 5, image, 7, END, 8],
    ]
    draw = numpy.random.default_rng(1)
    for length in range(3, 33):
        rows.append(
            [
                int(token)
                for token in draw.choice(
                    [0, 1, END, 7, 8, fake, image], length, p=[0.05, 0.1, 0.15, 0.2, 0.2, 0.1, 0.2]
                )
            ]
        )
    cases = []
    for row in rows:
        last, following = image_attention_mask_for_packed_input_ids(torch.tensor([row]), Names(image, END), "pt")
        cases.append({"ids": row, "last_image": last[0].tolist()})
    return {"image": image, "eos": END, "cases": cases}


def text_times():
    """Which image (from 1; 0 none) each token sees, and what tokens generated afterwards see."""
    media, cases = 9, []
    draw = numpy.random.default_rng(2)
    rows = [[5, 9, 6, 7, 9, 9, 6], [5, 6], [9], [9, 9, 9, 5]]
    rows += [draw.choice([4, 5, 6, media], int(n), p=[0.3, 0.2, 0.2, 0.3]).tolist() for n in range(4, 30)]
    for row in rows:
        located = torch.tensor([row]) == media
        cases.append({"ids": row, "text_time": located.cumsum(-1)[0].tolist(), "generated": int(located.sum())})
    return {"media": media, "cases": cases}


class TableConfig(PretrainedConfig):
    model_type = "table"


class Table(PreTrainedModel):
    """A language model whose next-token logits depend on the last token alone."""

    config_class = TableConfig
    main_input_name = "input_ids"

    def __init__(self, table):
        super().__init__(TableConfig(vocab_size=table.shape[0], is_encoder_decoder=False))
        self.table = torch.nn.Parameter(table)

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **_):
        return {"input_ids": input_ids}

    def can_generate(self):
        return True

    def forward(self, input_ids, attention_mask=None, **_):
        return CausalLMOutput(logits=self.table[input_ids])


def sampling():
    generator = torch.Generator().manual_seed(3)
    model, cases = Table(torch.zeros(20, 20)), []
    settings = [
        {"temperature": 0.7},
        {"temperature": 1.6},
        {"top_k": 5},
        {"top_k": 1},
        {"top_p": 0.9},
        {"top_p": 0.3},
        {"top_p": 0.01},
        {"min_p": 0.1},
        {"min_p": 0.5},
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 0.8},
        {"temperature": 0.5, "top_k": 8},
        {"temperature": 1.5, "top_p": 0.8},
        {"temperature": 0.6, "min_p": 0.05},
        {"top_k": 6, "top_p": 0.7},
        {"top_p": 0.9, "min_p": 0.2},
        {"top_k": 10, "min_p": 0.15},
        {"repetition_penalty": 1.5, "top_k": 4},
        {"repetition_penalty": 1.2, "temperature": 0.8, "top_p": 0.85},
        {"repetition_penalty": 1.1, "temperature": 0.9, "top_k": 12, "top_p": 0.95, "min_p": 0.02},
    ]
    for setting in settings:
        logits = torch.round(torch.randn(1, 20, generator=generator) * 1.5 * 1024) / 1024
        history = torch.randint(0, 20, (1, 6), generator=generator)
        config = GenerationConfig(do_sample=True, **{"top_k": 0, **setting})
        for name in ("_bos_token_tensor", "_eos_token_tensor", "_pad_token_tensor", "_decoder_start_token_tensor"):
            setattr(config, name, None)
        processors = model._get_logits_processor(config, 6, history, None, [])
        scores = processors(history, logits.clone())
        scores = model._get_logits_warper(config, "cpu")(history, scores)
        probabilities = scores.double().softmax(-1)[0]
        cases.append(
            {
                "settings": setting,
                "history": history[0].tolist(),
                "logits": listed(logits[0]),
                "kept": torch.isfinite(scores[0]).nonzero().flatten().tolist(),
                "probabilities": listed(probabilities, 9),
            }
        )
    return {"order": "repetition_penalty, temperature, top_k, top_p, min_p", "cases": cases}


def beams():
    """Beam search over table[last token]; the scores are transformers' sequences_scores."""
    tables, cases = [], []
    for number in range(4):
        generator = torch.Generator().manual_seed(40 + number)
        table = torch.round(torch.randn(12, 12, generator=generator) * 1.5 * 256) / 256
        table[:, END] += [0.0, 1.0, 2.0, -1.0][number]
        tables.append(table)
        model = Table(table).eval()
        for beam in (1, 2, 3, 4, 5):
            for penalty in (0.0, 1.0, 2.0, -0.5):
                for longest in (1, 2, 3, 5, 8, 12):
                    prompt = [1, 3 + (number + beam) % 9]
                    tokens = torch.tensor([prompt])
                    out = model.generate(
                        tokens,
                        attention_mask=torch.ones_like(tokens),
                        num_beams=beam,
                        max_new_tokens=longest,
                        eos_token_id=END,
                        pad_token_id=0,
                        do_sample=False,
                        early_stopping=False,
                        use_cache=False,
                        return_dict_in_generate=True,
                        output_scores=True,
                        **({"length_penalty": penalty, "num_return_sequences": beam} if beam > 1 else {}),
                    )
                    case = {"table": number, "prompt": prompt, "num_beams": beam, "max_new_tokens": longest}
                    sequences = [trimmed(row[2:].tolist()) for row in out.sequences]
                    if beam == 1:
                        if penalty == 0.0:
                            cases.append({**case, "sequences": sequences})
                        continue
                    scores = out.sequences_scores
                    if len(scores) > 1 and (scores[:-1] - scores[1:]).min() < 1e-5:
                        continue  # a tie, whose order rounding decides
                    cases.append(
                        {**case, "length_penalty": penalty, "sequences": sequences, "scores": listed(scores, 6)}
                    )
    return {
        "eos": END,
        "tables": [listed(table) for table in tables],
        "cases": cases,
        "note": "sequences hold the generated tokens, best first, with the end token where one was generated",
    }


def trimmed(row):
    """Without what pads the shorter sequences (the padding follows the end token)."""
    return row[: row.index(END) + 1] if END in row else row


def functions():
    generator = torch.Generator().manual_seed(5)
    double = torch.double
    x = torch.cat(
        [
            torch.tensor([-20.0, -6.0, -1.0, -0.0, 1e-4, 3.0, 20.0], dtype=double),
            torch.randn(17, generator=generator, dtype=double) * 2,
        ]
    )
    row, weight, bias = (
        (
            torch.randn(3, 16, generator=generator, dtype=double) * 3
            if i == 0
            else torch.randn(16, generator=generator, dtype=double)
        )
        for i in range(3)
    )
    rms = {}
    for eps in (1e-5, 1e-6):
        norm = LlamaRMSNorm(16, eps)
        norm.weight.data = weight
        small = row * 1e-3
        expected = small / torch.sqrt(small.pow(2).mean(-1, keepdim=True) + eps) * weight
        assert torch.allclose(norm(small).double(), expected, atol=1e-5)
        rms[str(eps)] = listed(expected)
    query = torch.randn(1, 2, 5, 8, generator=generator, dtype=double)
    positions = torch.tensor([0, 1, 2, 7, 100])
    rotated = {}
    for width in (8, 2, 4):
        angles = positions[:, None] / 10000.0 ** (torch.arange(0, width, 2, dtype=double) / width)
        angles = torch.cat([angles, angles], -1)[None]
        turned, _ = apply_rotary_pos_emb(query[..., :width], query[..., :width], angles.cos(), angles.sin())
        rotated[str(width)] = listed(torch.cat([turned, query[..., width:]], -1)[0])
    slopes = {}
    for heads in (1, 2, 3, 4, 6, 8, 12, 16, 20, 32):
        tensor = build_mpt_alibi_tensor(heads, 4, 8)  # slope * (j - 3)
        slopes[str(heads)] = listed(-tensor.flatten(1)[:, 2].double())
    return {
        "x": listed(x),
        "gelu": listed(functional.gelu(x)),
        "quick_gelu": listed(x * torch.sigmoid(1.702 * x)),
        "silu": listed(functional.silu(x)),
        "relu": listed(functional.relu(x)),
        "rows": listed(row),
        "weight": listed(weight),
        "bias": listed(bias),
        "layer_norm": listed(functional.layer_norm(row, (16,), weight, bias, 1e-5)),
        "layer_norm_no_bias": listed(functional.layer_norm(row, (16,), weight, None, 1e-5)),
        "rms_norm_of_rows_times_0.001": rms,
        "softmax": listed(row.softmax(-1)),
        "log_softmax": listed(row.log_softmax(-1)),
        "rope": {"positions": positions.tolist(), "query": listed(query[0]), "rotated_by_rotary_width": rotated},
        "alibi_slopes": slopes,
    }


PIECES = [
    "the",
    " small",
    " fox",
    "  ",
    "\n",
    "\t",
    "Question:",
    " what's",
    " it's",
    "1234",
    " 5,6",
    "caf\u00e9",
    "na\u00efve",
    "\u732b\u304c",
    "\u0434\u0430",
    "\U0001f98a",
    "\u00a0",
    "\u200d",
    "e\u0301",
    "<image>",
    "<fake_token_around_image>",
    "</s>",
    "<s>",
    "<unk>",
    "<end_of_utterance>",
    " <image>",
    "<image> ",
    "</S>",
    "<im",
    "age>",
    "_",
    "--",
    "don't",
    "I'LL",
    "\r\n",
    "ABC",
    "\u0130",
    "\uffff",
    "\u05e9\u05dc",
    " \n ",
    "   x",
    "\u00bd",
    "\u2163",
    "...",
    "'",
    "'s",
    "",
]


def tokenisation(output):
    draw, result = numpy.random.default_rng(6), []
    paths = [
        "cases/idefics-instruct/model/tokenizer.json",
        "cases/open_flamingo-llama/language/tokenizer.json",
        "cases/open_flamingo-opt/language/tokenizer.json",
    ]
    for path, count in zip(paths, (140, 30, 30)):
        tokenizer = common.tokenizer_of(json.loads((output / path).read_text()))
        cases = []
        for number in range(count):
            text = (
                PIECES[number]
                if number < len(PIECES) and count > 100
                else "".join(draw.choice(PIECES, int(draw.integers(1, 9))))
            )
            cases.append([text, tokenizer.encode(text, add_special_tokens=False).ids])
            with_prefix = tokenizer.encode(text).ids
            ids = cases[-1][1]
            cases[-1] += [
                with_prefix,
                tokenizer.decode(ids, skip_special_tokens=False),
                tokenizer.decode(ids, skip_special_tokens=True),
            ]
        result.append({"tokenizer": path, "cases": cases})
    return {
        "fields": ["text", "ids", "ids with the post-processor", "decoded", "decoded without special tokens"],
        "tokenizers": result,
    }


def all_cases(output, only):
    if only and only not in "semantics":
        return
    parts = {
        "image_masks": image_masks(),
        "text_times": text_times(),
        "sampling": sampling(),
        "beams": beams(),
        "functions": functions(),
        "tokens": tokenisation(output),
    }
    for name, part in parts.items():
        common.write_json(output / "semantics" / f"{name}.json", part, None)
        print(f"semantics/{name}.json: {len(part.get('cases', part))}")
