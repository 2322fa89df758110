"""Makes tests/data/eval/prompts.json: the prompts of OpenFlamingo 2.0.1's own evaluation.

    pip install --no-deps open_flamingo==2.0.1      # beside torch and numpy, see requirements-4.44.txt
    python tools/golden_prompts.py tests/data/eval/prompts.json

`eval/evaluate.py` runs as it is, over sets of a few made-up examples, on a model that answers nothing and writes down
what it was asked. The package leaves out `eval/models/open_flamingo.py`, whose four templates are restated here.
"""

import importlib.util
import json
import sys
from pathlib import Path
from unittest.mock import MagicMock

import torch

IMAGE, END = "<image>", "<|endofchunk|>"
CAPTIONS = ["a red fox on a green mat ", " two dogs.", "The quick brown dog\n", "een fiets \"zonder\" wielen", "a {brace}"]
QUESTIONS = ["what is it?", "How many birds? ", "is it <red>", "who's there?", "where"]
ANSWERS = [["two", "2"], [" a bowl "], ["yes"], ["bowmore "], ["no"]]
TEXTS = ["look at this", "it's {fine}", "a\nb", "", "“quoted”"]


class Recorder:
    """A model that writes down what it is asked."""

    device = "cpu"

    def __init__(self):
        self.asked = []

    def get_vqa_prompt(self, question, answer=None):
        return f"{IMAGE}Question:{question} Short answer:" + ("" if answer is None else answer + END)

    def get_caption_prompt(self, caption=None):
        return f"{IMAGE}Output:" + ("" if caption is None else caption + END)

    def get_imagenet_prompt(self, label=None):
        return f"{IMAGE}Output:" + ("" if label is None else label + END)

    def get_hateful_memes_prompt(self, text, label=None):
        question = f"{IMAGE}is an image with: '{text}' written on it. Is it hateful? Answer:"
        return question + ("" if label is None else label + END)

    def get_outputs(self, batch_text, batch_images, **_):
        self.asked += zip(batch_text, batch_images)
        return [""] * len(batch_text)

    def get_rank_classifications(self, batch_text, batch_images, names, **_):
        self.asked += zip(batch_text, batch_images)
        return torch.zeros(len(batch_text), len(names))


def evaluation():
    """The module `evaluate` without what it scores with, and without the model."""
    package = Path(importlib.util.find_spec("open_flamingo").submodule_search_locations[0])
    sys.path.insert(0, str(package / "eval"))
    others = "sklearn sklearn.metrics coco_metric rices ok_vqa_utils vqa_metric eval_datasets eval_model tqdm"
    package_parts = "open_flamingo.src open_flamingo.src.flamingo open_flamingo.train open_flamingo.train.distributed"
    for name in (others + " " + package_parts).split():
        sys.modules[name] = MagicMock()
    sys.modules["tqdm"].tqdm = lambda items, **_: items
    sys.modules["coco_metric"].postprocess_captioning_generation = lambda text: text
    import evaluate

    evaluate.torch.distributed = MagicMock()
    # One process, of a rank whose answers are not scored.
    evaluate.utils.prepare_eval_samples = lambda dataset, count, size: [evaluate.utils.custom_collate_fn([dataset[-1]])]
    # The examples shown, in order; a picture is its number among all.
    evaluate.utils.get_query_set = lambda dataset, size: dataset[:-1]
    evaluate.utils.sample_batch_demos_from_query_set = lambda examples, shots, size: [list(examples[:shots])] * size
    return evaluate


def main():
    evaluate = evaluation()
    arguments = MagicMock(model="open_flamingo", rices=False, rank=1, world_size=1, num_samples=1, batch_size=1)
    count = len(CAPTIONS)
    classes = ["no", "yes", "no", "yes", "no"]
    birds = ["house finch", "jay", "kite (bird of prey)", "magpie", "hen"]
    captions = [{"image": n, "image_id": n, "caption": CAPTIONS[n]} for n in range(count)]
    questions = [
        {"image": n, "question_id": n, "question": QUESTIONS[n], "answers": ANSWERS[n]} for n in range(count)
    ]
    memes = [{"id": n, "image": n, "ocr": TEXTS[n], "class_name": classes[n]} for n in range(count)]
    # Its own loop looks for "ocr" in ImageNet too, and fails where there is none.
    pictures = [{"id": n, "image": n, "ocr": "", "class_name": birds[n]} for n in range(count)]
    tasks = {
        "caption": (evaluate.evaluate_captioning, "CaptionDataset", captions, "coco"),
        "question": (evaluate.evaluate_vqa, "VQADataset", questions, "vqav2"),
        "classify": (evaluate.evaluate_classification, "ImageNetDataset", pictures, "imagenet"),
        "memes": (evaluate.evaluate_classification, "HatefulMemesDataset", memes, "hateful_memes"),
    }
    evaluate.IMAGENET_CLASSNAMES = birds
    evaluate.HM_CLASSNAMES = ["no", "yes"]
    cases = []
    for kind, (run, dataset, examples, name) in tasks.items():
        setattr(evaluate, dataset, lambda *_, examples=examples, **__: examples)
        for shots in [0, 1, 4]:
            model = Recorder()
            run(arguments, eval_model=model, num_shots=shots, dataset_name=name)
            [(text, images)] = model.asked
            # Markers take the pictures in order, so what is left over at the end is never seen.
            cases.append({"kind": kind, "shots": shots, "text": text, "pictures": images[: text.count(IMAGE)]})
    output = {
        "caption": [{"question": "", "answer": caption.strip()} for caption in CAPTIONS],
        "question": [{"question": asked["question"], "answer": asked["answers"][0]} for asked in questions],
        "classify": [{"question": "", "answer": name} for name in birds],
        "memes": [{"question": meme["ocr"], "answer": meme["class_name"]} for meme in memes],
        "cases": cases,
    }
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(output, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
