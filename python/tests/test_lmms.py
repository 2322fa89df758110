"""The model of lmms-eval on instances made by hand, without lmms-eval: what it imports stands here, restated.

The whole evaluator runs in `lmms_whole.py` (`FLAMANT_LMMS=1 tools/test_python.sh`).
"""

import importlib
import sys
import types
from dataclasses import dataclass, field
from typing import Any

import pytest
from PIL import Image

import flamant


@dataclass
class TokenCounts:
    """As in lmms-eval 0.7.3, `api/instance.py`."""

    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass
class GenerationResult:
    """As in lmms-eval 0.7.3, `api/instance.py`."""

    text: Any
    token_counts: TokenCounts | None = None


@dataclass
class Instance:
    """What the evaluator hands to a model: of it, models read `args`."""

    args: tuple[Any, ...]


class Base:
    """As `lmms` in lmms-eval 0.7.3, `api/model.py`, of which a model needs no more."""

    def __init__(self) -> None:
        self.task_dict: dict[str, Any] = {}


@dataclass
class Manifest:
    """As `ModelManifest` in lmms-eval 0.7.3, `models/registry_v2.py`."""

    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None
    aliases: tuple[str, ...] = field(default=())


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module `flamant.lmms`, over the restated names."""
    names: dict[str, dict[str, Any]] = {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.api.instance": {
            "GenerationResult": GenerationResult,
            "Instance": Instance,
            "TokenCounts": TokenCounts,
        },
        "lmms_eval.api.model": {"lmms": Base},
        "lmms_eval.models": {},
        "lmms_eval.models.registry_v2": {"ModelManifest": Manifest},
    }
    for name, content in names.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "flamant.lmms", raising=False)
    yield importlib.import_module("flamant.lmms")
    sys.modules.pop("flamant.lmms", None)


DOCUMENTS: list[dict[str, Any]] = [
    {"question": "kep.", "image": 0, "answer": "mul"},
    {"question": "mul.kep.", "image": 1, "answer": "kep"},
    {"question": "rob.", "image": 2, "answer": "kep"},
]


def image(shade: int) -> Any:
    """An RGB image of 40 x 40 pixels."""
    return Image.new("RGB", (40, 40), (60 * shade, 255 - 60 * shade, 128))


def visuals(document: dict[str, Any]) -> list[Any]:
    return [image(document["image"])]


def made(kind: type, **settings: Any) -> Any:
    model = kind(None, batch_size=1, max_batch_size=None, device="cpu", **settings)
    model.task_dict = {"signs": {"test": DOCUMENTS}}
    return model


def test_the_manifest_names_both_kinds(plugin: Any) -> None:
    (manifest,) = plugin.manifests()
    assert manifest.model_id == "flamant"
    kinds = [getattr(plugin, path.rsplit(".", 1)[1]) for path in (manifest.simple_class_path, manifest.chat_class_path)]
    assert kinds == [plugin.Flamant, plugin.FlamantChat]
    assert [kind.is_simple for kind in kinds] == [True, False]
    assert manifest.simple_class_path.startswith("flamant.lmms.")


def test_answers_come_in_order_and_are_the_engines(plugin: Any) -> None:
    model = made(plugin.Flamant, max_sequences=2, queue=3)
    settings = {"max_new_tokens": 4, "temperature": 0.7, "do_sample": False, "until": ["zzz"], "num_beams": 1}
    instances = [
        Instance((DOCUMENTS[number % 3]["question"] + "<image>", dict(settings), visuals, number % 3, "signs", "test"))
        for number in range(12)
    ]
    results = model.generate_until(instances)
    with flamant.Engine() as engine:
        expected = [
            engine.generate((image(document["image"]), document["question"]), max_new_tokens=4, stop=["zzz"])
            for document in DOCUMENTS
        ]
    assert len({answer.text for answer in expected}) > 1
    for number, result in enumerate(results):
        answer = expected[number % 3]
        assert result.text == answer.text
        assert result.token_counts == TokenCounts(answer.usage.prompt_tokens, answer.usage.completion_tokens)
    # The instances are as they were: lmms-eval reads them again.
    assert instances[0].args[1] == settings


def test_likelihoods_are_negative_and_survive_the_evaluator(plugin: Any) -> None:
    model = made(plugin.Flamant)
    choices = ["kep", "mul", "rob"]
    instances = [
        Instance((document["question"], choice, visuals, number, "signs", "test"))
        for number, document in enumerate(DOCUMENTS)
        for choice in choices
    ]
    # In tasks of `output_type: loglikelihood` it is a function of the document.
    instances.append(Instance(("kep.", lambda document: document["answer"], visuals, 0, "signs", "test")))
    # Unconditional ones have neither images nor a place.
    instances.append(Instance(("", "kep")))
    results = model.loglikelihood(instances)
    assert all(isinstance(result, GenerationResult) for result in results)
    with flamant.Engine() as engine:
        for number, document in enumerate(DOCUMENTS):
            prompt = (image(document["image"]), document["question"])
            expected = engine.loglikelihood(prompt, choices)
            found = [result.text for result in results[3 * number : 3 * number + 3]]
            assert found == [(-likelihood, greedy) for likelihood, greedy in expected]
            ranked = engine.classify(prompt, choices)
            # Tasks take the least.
            least = min(range(3), key=lambda index: found[index][0])
            assert choices[least] == max(ranked.choices, key=lambda choice: choice.sum).text
    assert results[9].text == results[1].text
    value, greedy = results[10].text
    assert value > 0 and isinstance(greedy, bool)


def test_chats_are_the_engines(plugin: Any) -> None:
    model = made(plugin.FlamantChat)

    def messages(document: dict[str, Any]) -> list[dict[str, Any]]:
        parts = [{"type": "image", "url": image(document["image"])}, {"type": "text", "text": document["question"]}]
        return [{"role": "user", "content": parts}]

    settings = {"max_new_tokens": 4, "until": "\n\n"}
    instances = [Instance(("", messages, dict(settings), number, "signs", "test")) for number in range(3)]
    results = model.generate_until(instances)
    with flamant.Engine() as engine:
        for result, document in zip(results, DOCUMENTS, strict=True):
            turns = [{"role": "user", "content": [image(document["image"]), document["question"]]}]
            assert result.text == engine.chat(turns, max_new_tokens=4, stop=["\n\n"]).text
    with pytest.raises(NotImplementedError, match="force_simple"):
        model.loglikelihood([])
    with pytest.raises(NotImplementedError, match="multi_round"):
        model.generate_until_multi_round([])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, {"max_new_tokens": 1024, "temperature": 0.0, "stop": []}),
        ({"until": "a", "temperature": 0.5}, {"max_new_tokens": 1024, "temperature": 0.5, "stop": ["a"]}),
        (
            {"until": ["a", ""], "do_sample": False, "temperature": 1, "top_p": None, "num_beams": 3, "other": 1},
            {"max_new_tokens": 1024, "temperature": 0.0, "stop": ["a"], "num_beams": 3},
        ),
    ],
)
def test_settings_are_told_by_our_names(plugin: Any, given: dict[str, Any] | None, expected: dict[str, Any]) -> None:
    assert plugin._settings(given) == expected


def test_images_are_taken_out_of_whatever_tasks_return(plugin: Any) -> None:
    assert plugin._prompt(None, "a <image>b") == ["a b"]
    assert plugin._prompt([["x", "y"][:0]], "") == [""]
    one = object()
    assert plugin._prompt([[one]], "a") == [one, "a"]
    assert plugin._prompt(one, "") == [one]
    with pytest.raises(ValueError, match="expected parts text, image or video, found 'audio'"):
        plugin._turn({"role": "user", "content": [{"type": "audio", "url": "a.wav"}]})
