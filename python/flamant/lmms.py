"""The model ``flamant`` of lmms-eval: ``lmms_eval --model flamant --model_args model=FOLDER,device=cuda ...``.

``pip install './python[lmms]'`` registers it (entry point ``lmms_eval.models``). Arguments are those of
:class:`flamant.Engine`, ``model`` first. Requests run side by side, as many as the engine takes, whatever
``batch_size`` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest

import flamant

__all__ = ["Flamant", "FlamantChat", "manifests"]

# What a task that says nothing is given, as by the other models of lmms-eval.
_MAX_NEW_TOKENS = 1024
# Settings of generation that both know by one name.
_SAME = ("max_new_tokens", "top_p", "top_k", "num_beams", "length_penalty", "repetition_penalty", "min_p", "seed")


def manifests() -> list[ModelManifest]:
    """What the entry point tells lmms-eval."""
    paths = {"simple_class_path": f"{__name__}.Flamant", "chat_class_path": f"{__name__}.FlamantChat"}
    return [ModelManifest(model_id="flamant", **paths)]


class _Model(lmms):  # type: ignore[misc]
    """What both kinds have: an engine."""

    def __init__(self, model: str | None = None, batch_size: Any = None, **engine: Any) -> None:
        super().__init__()
        # lmms-eval hands every model its own batch size and the device of `--device`.
        settings = {name: value for name, value in engine.items() if value is not None and name != "max_batch_size"}
        self._engine = flamant.Engine(model, **settings)
        # As many wait as run, so that a step is never short of work; never more than the queue takes.
        sequences, queue = int(settings.get("max_sequences", 64)), int(settings.get("queue", 1024))
        self._threads = min(2 * sequences, queue)

    def _document(self, task: str, split: str, number: int) -> Any:
        return self.task_dict[task][split][number]

    def _side_by_side(self, work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """Each waits in a thread of its own; documents are loaded as their turn comes."""
        with ThreadPoolExecutor(self._threads, thread_name_prefix="flamant-lmms") as threads:
            return list(threads.map(work, items))

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Raises: these tasks want a model that answers itself, round after round."""
        raise NotImplementedError("flamant: tasks of generate_until_multi_round are not supported")


class Flamant(_Model):
    """The simple kind: a document's images, then its text, as a raw prompt."""

    is_simple = True

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answers of all requests, in their order."""

        def answer(request: Instance) -> GenerationResult:
            context, settings, visuals, number, task, split = request.args
            prompt = _prompt(visuals(self._document(task, split, number)), context)
            return _generated(self._engine.generate(prompt, **_settings(settings)))

        return self._side_by_side(answer, requests)

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:
        """For each request ``(value, is_greedy)``, where ``value`` is the **negative** log-likelihood: tasks of
        lmms-eval take the least of them. Continuations of one context are computed together."""
        together: dict[Any, list[tuple[int, str]]] = {}
        for index, request in enumerate(requests):
            context, continuation, *place = request.args
            if callable(continuation):
                # In tasks of `output_type: loglikelihood` it is a function of the document.
                _, number, task, split = place
                continuation = continuation(self._document(task, split, number))
            # Unconditional likelihoods have neither images nor a place. Functions are the same for one task.
            key = (context, *place)
            together.setdefault(key, []).append((index, str(continuation)))
        results: list[GenerationResult] = [None] * len(requests)

        def answer(item: tuple[Any, list[tuple[int, str]]]) -> None:
            (context, *place), continuations = item
            images: Sequence[Any] = ()
            if place:
                visuals, number, task, split = place
                images = visuals(self._document(task, split, number))
            found = self._engine.loglikelihood(_prompt(images, context), [text for _, text in continuations])
            for (index, _), (likelihood, greedy) in zip(continuations, found, strict=True):
                # Wrapped, since lmms-eval 0.7 turns any other pair into a string and then cannot read it.
                results[index] = GenerationResult(text=(-likelihood, greedy))

        self._side_by_side(answer, together.items())
        return results


class FlamantChat(_Model):
    """The kind for messages: the turns of a document, by the model's chat template."""

    is_simple = False

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answers of all requests, in their order."""

        def answer(request: Instance) -> GenerationResult:
            _, messages, settings, number, task, split = request.args
            turns = [_turn(message) for message in messages(self._document(task, split, number))]
            return _generated(self._engine.chat(turns, **_settings(settings)))

        return self._side_by_side(answer, requests)

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:
        """Raises: lmms-eval asks for likelihoods of the simple kind alone (``--force_simple``)."""
        raise NotImplementedError("flamant: loglikelihood needs the simple kind (--force_simple)")


def _prompt(visuals: Any, context: str) -> list[Any]:
    """Images before the text. `<image>` in it is where other models put their own marker."""
    images = list(_flat(visuals))
    text = context.replace("<image>", "")
    return [*images, text] if text or not images else images


def _flat(visuals: Any) -> Iterable[Any]:
    """Images of a document: tasks return a list, lists in a list, one image or nothing."""
    if visuals is None:
        return
    if isinstance(visuals, list | tuple):
        for visual in visuals:
            yield from _flat(visual)
    elif isinstance(visuals, str):
        yield flamant.Video(visuals)
    else:
        yield visuals


def _turn(message: dict[str, Any]) -> dict[str, Any]:
    """A message of lmms-eval as one of `Engine.chat`: images and videos stand under `url`."""
    content = message["content"]
    if not isinstance(content, str):
        content = [part["text"] if part["type"] == "text" else _media(part) for part in content]
    return {"role": message["role"], "content": content}


def _media(part: dict[str, Any]) -> Any:
    kind = part["type"]
    if kind == "image":
        return part["url"]
    if kind == "video":
        return flamant.Video(part["url"])
    raise ValueError(f"flamant: expected parts text, image or video, found {kind!r}")


def _settings(given: dict[str, Any] | None) -> dict[str, Any]:
    """Settings of generation by the engine's names; `do_sample: false` is greedy whatever else is said."""
    given = dict(given or {})
    stop = given.get("until") or ()
    settings = {name: given[name] for name in _SAME if given.get(name) is not None}
    settings.setdefault("max_new_tokens", _MAX_NEW_TOKENS)
    greedy = given.get("do_sample") is False
    settings["temperature"] = 0.0 if greedy else float(given.get("temperature") or 0.0)
    settings["stop"] = [stop] if isinstance(stop, str) else [text for text in stop if text]
    return settings


def _generated(completion: flamant.Completion) -> GenerationResult:
    usage = completion.usage
    counts = TokenCounts(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens)
    return GenerationResult(text=completion.text, token_counts=counts)
