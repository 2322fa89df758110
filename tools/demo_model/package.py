"""Writes the model folder, its card and the parity fixture.

    python package.py --work WORK --out models/demo --fixture tests/data/demo/episodes.json

Everything is written beside its destination and moved into place at the end.
"""
import argparse
import json
import os
import re
import shutil

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, processors
from transformers import GenerationConfig, IdeficsForVisionText2Text, IdeficsImageProcessor

import evaluate as ev
from symbols import HELD_OUT, HELD_OUT_BLOCKS, TILE, TITLES
from train_language import FAKE, IMAGE, TOKEN, VOCAB, config, image_mask, test_episodes, tokens
from train_vision import CLIP_MEAN, CLIP_STD, Tower

DATE = "2026-11-23"
MACHINE = "2 cores of an AMD EPYC"
DEJAVU = "DejaVu fonts: Bitstream Vera licence, changes in the public domain"


def write_model(folder, work):
    saved = torch.load(os.path.join(work, "language.pt"))
    tower = Tower()
    tower.load_state_dict(saved["tower"])
    model = IdeficsForVisionText2Text(config())
    model.load_state_dict(saved["model"])
    model.model.vision_model.load_state_dict(tower.idefics_state(), strict=False)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=[2, TOKEN["."]], pad_token_id=0, max_new_tokens=8)
    model.to(torch.bfloat16).save_pretrained(folder)
    IdeficsImageProcessor(image_size=TILE, image_mean=list(CLIP_MEAN), image_std=list(CLIP_STD)).save_pretrained(folder)


def write_tokenizer(folder):
    """One token a character: byte-pair encoding without a single merge."""
    t = Tokenizer(models.BPE(vocab=TOKEN, merges=[], unk_token="<unk>"))
    t.decoder = decoders.Fuse()
    specials = ["<unk>", "<s>", "</s>", "<fake_token_around_image>", "<image>"]
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
    assert t.token_to_id("<fake_token_around_image>") == FAKE and t.token_to_id("<image>") == IMAGE
    t.save(os.path.join(folder, "tokenizer.json"))
    ids = {s: t.token_to_id(s) for s in specials}
    json.dump({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "pad_token": "<unk>", "add_bos_token": True, "add_eos_token": False, "clean_up_tokenization_spaces": False,
        "model_max_length": 1024, "additional_special_tokens": specials[3:],
        "added_tokens_decoder": {str(i): {"content": s, "lstrip": False, "normalized": False, "rstrip": False,
                                          "single_word": False, "special": True} for s, i in ids.items()},
    }, open(os.path.join(folder, "tokenizer_config.json"), "w"), indent=2)


def write_sheets(folder, work):
    os.makedirs(os.path.join(folder, "symbols"))
    sheets, info, out = np.load(os.path.join(work, "sheets.npz")), json.load(open(os.path.join(work, "sheets.json"))), []
    for name in sheets.files:
        # 32 levels of grey, stretched over 8 bits, make the files a third smaller.
        s = (np.round(sheets[name] / 255 * 31) * 255 / 31).round().astype(np.uint8)
        rows, columns = s.shape[:2]
        Image.fromarray(s.transpose(0, 2, 1, 3).reshape(rows * TILE, columns * TILE)).save(
            os.path.join(folder, "symbols", name + ".png"), optimize=True)
        codes = info[name]["codes"]
        out.append({"name": name, "title": TITLES[name], "file": name + ".png", "tile": TILE, "rows": rows,
                    "columns": columns, "code_points": codes and [f"U+{c:04X}" for c in codes],
                    "fonts": info[name]["fonts"], "licence": DEJAVU if codes else "made up by tools/demo_model/symbols.py"})
    json.dump({"sheets": out}, open(os.path.join(folder, "symbols", "symbols.json"), "w"), indent=1)


def write_training(folder, work):
    bank = json.load(open(os.path.join(work, "bank.json")))
    vision, language = (json.load(open(os.path.join(work, f + ".json"))) for f in ("vision", "language"))
    report = {
        "date": DATE, "machine": MACHINE,
        "held_out_scripts": HELD_OUT, "held_out_blocks": [[f"U+{a:04X}", f"U+{b:04X}"] for a, b in HELD_OUT_BLOCKS],
        "also_never_drawn": "numerals of any script (general category N)",
        "stages": {"vision": vision, "language": language},
        "seeds": {"training symbols": bank["seed"], "test letters": 5, "test made-up symbols": 9999,
                  "vision": 0, "language": [3, 4]},
        "made_up_symbols": bank["made_up_symbols"],
        "letters": sum(s["symbols"] for s in bank["scripts"].values()),
        "scripts": bank["scripts"], "fonts": bank["fonts"],
        "font_licences": "Noto: SIL Open Font License 1.1; DejaVu: Bitstream Vera licence, changes in the public domain",
    }
    text = json.dumps(report, indent=1)
    text = re.sub(r'\[\s+("U\+\w+"),\s+("U\+\w+")\s+\]', r"[\1, \2]", text)     # a range a line
    with open(os.path.join(folder, "training.json"), "w") as f:
        f.write(text + "\n")


@torch.no_grad()
def write_fixture(path, folder):
    """Prompts whose log-probabilities another implementation can be held to."""
    model, sheets = ev.load(folder)
    out = []
    for i, (sheet, ways, shown) in enumerate([("armenian", 2, 5), ("georgian", 2, 3), ("tifinagh", 5, 5), ("nko", 3, 5),
                                              ("syllabics", 5, 8), ("procedural", 5, 5), ("nko", 2, 1), ("tifinagh", 8, 16)]):
        rng = np.random.default_rng(1000 + i)
        rows, columns, names, choices = next(test_episodes(rng, *sheets[sheet].shape[:2], ways, shown, 1))
        x = ev.pixels(sheets[sheet][rows, columns])[None]
        ids = torch.tensor([tokens(names)[:-4]])
        answer, answer_logp, prompt_logp = [], [], None
        for _ in range(4):
            mask = image_mask(len(rows))[:ids.shape[1]]
            logp = model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=x,
                         image_attention_mask=mask[None], use_cache=False).logits.log_softmax(-1)[0]
            if prompt_logp is None:
                prompt, prompt_logp = ids[0].tolist(), logp[:-1].gather(1, ids[0, 1:, None])[:, 0].tolist()
            best = int(logp[-1].argmax())
            answer.append(best)
            answer_logp.append(float(logp[-1, best]))
            ids = torch.cat([ids, torch.tensor([[best]])], 1)
        out.append({"pictures": [[sheet, int(r), int(c)] for r, c in zip(rows, columns)], "names": names[:-1],
                    "expected": names[-1], "token_ids": prompt,
                    "token_log_probs": [round(v, 6) for v in prompt_logp],
                    "answer": "".join(VOCAB[t] for t in answer if t < len(VOCAB)), "answer_ids": answer,
                    "answer_log_probs": [round(v, 6) for v in answer_logp]})
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".tmp", "w") as f:
        f.write('{"note": "token_log_probs[i] is the log-probability of token_ids[i + 1]; float32, from the bfloat16 weights",\n'
                ' "episodes": [\n' + ",\n".join("  " + json.dumps(e) for e in out) + "\n]}\n")
    os.replace(path + ".tmp", path)
    print("fixture:", sum(e["answer"].startswith(e["expected"]) for e in out), "of", len(out), "right")


def card(r, training, size, parameters):
    p = lambda v: f"{100 * v:.1f}"
    sheets = ev.ALPHABETS + ["procedural"]
    vision, language = training["stages"]["vision"], training["stages"]["language"]
    lines = ["# A small model that learns names in context", "",
             "An IDEFICS checkpoint of the ordinary layout, small enough to sit in a repository. It is shown a few images",
             "of symbols with made-up three-letter names, and names the next image by them. It has no other knowledge: the",
             "writing systems of the test sheets were never drawn for training, and names are dealt afresh in each prompt.", "",
             f"{parameters:,} parameters; `model.safetensors` {size:,} bytes (bfloat16).", "",
             f"- vision tower: {TILE}x{TILE} pixels, patch 8, width 128, 4 layers, 4 heads;",
             "- resampler: 4 latents, 1 layer, 4 heads of 32;",
             "- language: 3 LLaMA layers, width 128, 4 heads, MLP 256, a gated cross-attention block before each, q/k norms;",
             f"- {len(VOCAB)} tokens, one a character (`a` to `z`, full stop), and two for images.", "",
             "Prompt: `<s>`, then for each image `<fake_token_around_image><image><fake_token_around_image>` and its name,",
             "three letters and a full stop (`kep.`); the last image's name is left to the model. White drawings on black.", "",
             "## Accuracy", "",
             f"The shipped weights on the shipped test sheets, greedy decoding, all three letters right; {r['prompts']} prompts a",
             "cell, in per cent. Six images a prompt: five shown with names (each symbol at least once), the sixth to be",
             "named; at 8 ways nine images, eight shown.", "",
             "| ways | " + " | ".join(TITLES[s] for s in sheets) + " | five alphabets, mean |",
             "|" + "---|" * (len(sheets) + 2)]
    for w, row in r["ways"].items():
        lines.append(f"| {w} | " + " | ".join(p(row[s]) for s in sheets) + f" | **{p(row['mean'])}** |")
    lines += ["", f"Against the number of images shown (5 ways, mean of the five alphabets, {max(64, r['prompts'] // 4)} prompts each);",
              "with fewer images than ways, the symbol asked for may not have been shown (it has in 0, 20, 40 and 80",
              "per cent with 0, 1, 2 and 4). *Ranked*: the likeliest of the five names (chance 20).", "",
              "| shown | " + " | ".join(str(k) for k in r["shots"]) + " |", "|" + "---|" * (len(r["shots"]) + 1)]
    for how in ("greedy", "ranked"):
        lines.append(f"| {how} | " + " | ".join(p(v[how]) for v in r["shots"].values()) + " |")
    lines += ["", "Controls (mean of the five alphabets):", "",
              "- the images shown replaced by unrelated ones, names ranked: "
              + "; ".join(f"{w} ways {p(v['mean'])} (chance {p(1 / int(w))})" for w, v in r["unrelated"].items()) + ";",
              "- two names change places in the prompt, the asked one among them; the answer is then the other name in: "
              + "; ".join(f"{w} ways {p(v['right_before'])} of the prompts answered rightly before ({p(v['all'])} of all)"
                          for w, v in r["swapped"].items()) + ".", "",
              "## Training", "",
              f"{training['date']}, {training['machine']}, shared with other work. {training['letters']:,} letters and signs of",
              f"{len(training['scripts'])} scripts in Noto and DejaVu fonts and {training['made_up_symbols']:,} made-up symbols; `training.json` lists them by code point.",
              f"Vision, contrastive: {vision['steps']} steps, {vision['minutes']:.0f} minutes. Then the rest on made-up prompts: "
              + "; ".join(f"{s['steps']} steps{' with the vision tower trained along' if s['end_to_end'] else ''}, {s['minutes']:.0f} minutes"
                          for s in language) + ".",
              *[s["note"] for s in language if "note" in s],
              "Training lengths are wall-clock minutes, so that a rerun gives a like model, not the same bytes.", "", "```sh",
              "cd tools/demo_model", "python symbols.py --work WORK", f"python train_vision.py --work WORK --minutes {vision['minutes']:.0f}"]
    for i, s in enumerate(language):
        lines.append(f"python train_language.py --work WORK --minutes {s['minutes']:.0f}" + (" --resume" if i else "")
                     + (" --end-to-end" if s["end_to_end"] else ""))
    lines += ["python package.py --work WORK --out ../../models/demo --fixture ../../tests/data/demo/episodes.json", "```", "",
              "Fonts were used to draw images only; none is included. " + training["font_licences"] + ".", ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--fixture", required=True)
    parser.add_argument("--prompts", type=int, default=1024)
    args = parser.parse_args()
    tmp = args.out.rstrip("/") + ".tmp"
    shutil.rmtree(tmp, ignore_errors=True)
    os.makedirs(tmp)
    write_model(tmp, args.work)
    write_tokenizer(tmp)
    write_sheets(tmp, args.work)
    write_training(tmp, args.work)
    results = ev.evaluate(tmp, args.prompts)
    json.dump(results, open(os.path.join(args.work, "results.json"), "w"), indent=1)
    size = os.path.getsize(os.path.join(tmp, "model.safetensors"))
    parameters = sum(p.numel() for p in IdeficsForVisionText2Text(config()).parameters())
    with open(os.path.join(tmp, "README.md"), "w") as f:
        f.write(card(results, json.load(open(os.path.join(tmp, "training.json"))), size, parameters))
    write_fixture(args.fixture + ".new", tmp)
    for folder, _, files in os.walk(tmp):
        target = os.path.join(args.out, os.path.relpath(folder, tmp))
        os.makedirs(target, exist_ok=True)
        for f in files:
            os.chmod(os.path.join(folder, f), 0o644)
            os.replace(os.path.join(folder, f), os.path.join(target, f))
    os.replace(args.fixture + ".new", args.fixture)
    shutil.rmtree(tmp)
    print(json.dumps(results["ways"]), results["shots"], results["unrelated"], results["swapped"], size)


if __name__ == "__main__":
    main()
