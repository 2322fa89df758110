"""The whole evaluator of lmms-eval on tasks of this file, with both kinds of the model and all kinds of requests.

`FLAMANT_LMMS=1 tools/test_python.sh` runs it, in an environment of its own and without torch, of which the evaluator
uses nothing here: a few lines stand in its place.
"""

import importlib.abc
import importlib.machinery
import json
import math
import sys
import types
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

# These look whether there is a torch, and must find none.
import datasets  # noqa: F401
import evaluate  # noqa: F401
import transformers  # noqa: F401

import flamant


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules of torch and accelerate in which every name is there and does nothing."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.split(".")[0] not in ("torch", "accelerate", "torchvision"):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)

        def attribute(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            # Names of classes are inherited from and asked for by isinstance.
            return type(name, (), {}) if name[0].isupper() else MagicMock(name=f"{spec.name}.{name}")

        module.__getattr__ = attribute  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """There is nothing to run."""


UTILITIES = """
from PIL import Image


def visuals(document):
    return [Image.new("RGB", (40, 40), (document["shade"], 0, 128))]


def text(document, kwargs=None):
    return document["question"]


def messages(document, kwargs=None):
    parts = [{"type": "image", "url": visuals(document)[0]}, {"type": "text", "text": document["question"]}]
    return [{"role": "user", "content": parts}]


def right(document, results):
    return {"exact": float(results[0] == document["generated"])}


def right_chat(document, results):
    return {"exact": float(results[0] == document["chatted"])}
"""

HEAD = """
dataset_path: json
dataset_kwargs:
  data_files: {test: FILE}
test_split: test
doc_to_visual: !function utilities.visuals
doc_to_text: !function utilities.text
metadata: {version: 1.0}
"""

GENERATE = """
output_type: generate_until
doc_to_target: generated
generation_kwargs: {max_new_tokens: 6, temperature: 0, do_sample: false, until: ["zzz"]}
metric_list: [{metric: exact, aggregation: mean, higher_is_better: true}]
"""

TASKS = {
    "signs_generate": f"{GENERATE}process_results: !function utilities.right\n",
    "signs_chat": f"{GENERATE}process_results: !function utilities.right_chat\n"
    "doc_to_messages: !function utilities.messages\n",
    "signs_choose": "output_type: multiple_choice\ndoc_to_target: best\ndoc_to_choice: ['kep', 'mul', 'rob']\n"
    "target_delimiter: ''\nmetric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n",
}

CHOICES = ["kep", "mul", "rob"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tasks, whose targets are what the engine itself says."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("tasks")
    documents = []
    with flamant.Engine() as engine:
        for number in range(6):
            question = ["kep.", "mul.kep.", "rob."][number % 3]
            image = Image.new("RGB", (40, 40), (40 * number, 0, 128))
            weighed = {choice.text: choice.sum for choice in engine.classify([image, question], CHOICES).choices}
            turns = [{"role": "user", "content": [image, question]}]
            documents.append(
                {
                    "question": question,
                    "shade": 40 * number,
                    "generated": engine.generate([image, question], max_new_tokens=6, stop=["zzz"]).text,
                    "chatted": engine.chat(turns, max_new_tokens=6, stop=["zzz"]).text,
                    "best": max(range(3), key=lambda index: weighed[CHOICES[index]]),
                }
            )
    assert len({document["best"] for document in documents}) > 1
    data = folder / "signs.jsonl"
    data.write_text("".join(f"{json.dumps(document)}\n" for document in documents))
    (folder / "utilities.py").write_text(UTILITIES)
    for name, rest in TASKS.items():
        (folder / f"{name}.yaml").write_text(f"task: {name}{HEAD.replace('FILE', str(data))}{rest}")
    return folder


def score(folder: Path, task: str, *, simple: bool) -> dict[str, Any]:
    """What the evaluator says of a task."""
    sys.meta_path.insert(0, Absent())
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    found: dict[str, Any] = simple_evaluate(
        model="flamant",
        model_args="max_sequences=4",
        tasks=[task],
        batch_size=1,
        device="cpu",
        force_simple=simple,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    return found


@pytest.mark.parametrize(
    ("task", "simple", "metric"),
    [("signs_generate", True, "exact"), ("signs_chat", False, "exact"), ("signs_choose", True, "acc")],
)
def test_a_task_is_answered_as_by_the_engine(folder: Path, task: str, simple: bool, metric: str) -> None:
    found = score(folder, task, simple=simple)
    results = found["results"][task]
    assert math.isclose(results[f"{metric},none"], 1.0), results
    assert len(found["samples"][task]) == 6
