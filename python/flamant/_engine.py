"""The engine."""

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike, fspath
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, TypeVar, overload

from . import _flamant
from ._request import Request
from ._types import Classification, Completion, Image, Rendered, Sampling, Score, Stats, Video, matrix

T = TypeVar("T")

Part: TypeAlias = str | Image | Video | Mapping[str, Any]
"""A text, an image, a video, or a part of a prompt file: ``{"text": ...}``, ``{"image": ...}``, ``{"video": ...}``."""

Prompt: TypeAlias = str | Sequence[Part]
"""A text, or parts in order. A ``str`` is always text: paths are ``pathlib.Path``."""


class Engine:
    """A model, ready for many requests at once, of any threads and tasks.

    ``model`` is a folder, or a name of Hugging Face's hub (``owner/name``) that is in the local cache; none is the
    small model in the package. Nothing is ever fetched but with ``download``, by ``huggingface_hub``.

    The other settings are those of the command line. ``device`` is ``cpu``, ``cuda``, ``cuda:N`` or ``auto``; ``dtype``
    is ``bf16`` or ``f16`` on a GPU; ``kv_dtype`` ``int8`` keeps keys and values in 8 bits; ``threads`` 0 is one a core; ``load`` is ``map`` (opens at once; the files must
    stay as they are) or ``read``. ``max_sequences`` requests run at a time, ``queue`` more may wait; a step has at most
    ``max_batched_tokens`` tokens and ``max_batched_images`` images; ``text_pages`` and ``media_pages`` size the caches.
    ``chat_template`` is the name of a template of conversations or a file with one, in place of the family's.

    An engine that is pickled is opened again with the same settings where it is unpickled. In the child of a fork it
    raises ``RuntimeError``.
    """

    def __init__(
        self,
        model: str | PathLike[str] | None = None,
        *,
        download: bool = False,
        device: str = "cpu",
        dtype: Literal["bf16", "f16"] | None = None,
        kv_dtype: Literal["auto", "int8"] = "auto",
        threads: int = 0,
        load: Literal["map", "read"] = "map",
        context_max: int | None = None,
        max_sequences: int = 64,
        max_batched_tokens: int | None = None,
        max_batched_images: int | None = None,
        text_pages: int | None = None,
        media_pages: int | None = None,
        queue: int = 1024,
        prefix_caching: bool = True,
        chat_template: str | None = None,
    ) -> None:
        self._settings: dict[str, Any] = {
            "model": model,
            "download": download,
            "device": device,
            "dtype": dtype,
            "kv_dtype": kv_dtype,
            "threads": threads,
            "load": load,
            "context_max": context_max,
            "max_sequences": max_sequences,
            "max_batched_tokens": max_batched_tokens,
            "max_batched_images": max_batched_images,
            "text_pages": text_pages,
            "media_pages": media_pages,
            "queue": queue,
            "prefix_caching": prefix_caching,
            "chat_template": chat_template,
        }
        folder = downloaded(fspath(model)) if download and model is not None else model
        self._engine = _flamant.Engine(self._settings | {"model": folder})

    @property
    def info(self) -> dict[str, Any]:
        """What the model is made of, where it runs, and what bounds it."""
        info: dict[str, Any] = json.loads(self._engine.info)
        return info

    @overload
    def submit(
        self,
        prompt: Prompt,
        sampling: Sampling | None = None,
        *,
        id: int | str | None = None,
        task: Literal["generate"] = "generate",
        **settings: Any,
    ) -> Request[Completion]: ...

    @overload
    def submit(
        self,
        prompt: Prompt,
        *,
        id: int | str | None = None,
        task: Literal["classify"],
        choices: Sequence[str],
        mean: bool = False,
    ) -> Request[Classification]: ...

    @overload
    def submit(
        self,
        prompt: Prompt,
        *,
        id: int | str | None = None,
        task: Literal["score"],
        logits: bool = False,
        top_logprobs: int = 0,
    ) -> Request[Score]: ...

    def submit(
        self,
        prompt: Prompt,
        sampling: Sampling | None = None,
        *,
        id: int | str | None = None,
        task: Literal["generate", "classify", "score"] = "generate",
        choices: Sequence[str] | None = None,
        mean: bool = False,
        logits: bool = False,
        **settings: Any,
    ) -> Request[Any]:
        """Submits a request and returns at once, after its images were decoded.

        Settings are the fields of :class:`flamant.Sampling`, and stand above those of ``sampling``. A line of
        ``flamant batch`` is ``engine.submit(**line)``. Raises :class:`flamant.QueueFull` where too many wait.
        """
        if task == "generate":
            events = self._write(prompt, merged(sampling, settings))
        elif task == "score":
            top_logprobs = settings.pop("top_logprobs", 0)
            refuse(task, sampling, settings)
            events = self._submit(prompt, logits=logits, top_logprobs=top_logprobs)
        elif task == "classify":
            refuse(task, sampling, settings)
            if choices is None:
                raise TypeError("submit: expected choices to classify by, found none")
            events = self._weigh(prompt, choices, mean=mean)
        else:
            raise ValueError(f"submit: expected the task generate, classify or score, found {task!r}")
        return Request(events, id)

    @overload
    def generate(
        self, prompts: list[list[Any]], sampling: Sampling | None = None, **settings: Any
    ) -> list[Completion]: ...

    @overload
    def generate(self, prompts: Prompt, sampling: Sampling | None = None, **settings: Any) -> Completion: ...

    def generate(
        self, prompts: Prompt | list[list[Any]], sampling: Sampling | None = None, **settings: Any
    ) -> Completion | list[Completion]:
        """Writes after a prompt, or after many side by side, and waits.

        A list whose items are all lists is many prompts; everything else is one. So ``["a", "b"]`` is one prompt of two
        texts, and ``[["a"], ["b"]]`` are two. Of many, as many wait as the engine takes.

        >>> import flamant
        >>> with flamant.Engine() as engine:
        ...     len(engine.generate([["kep."], ["mul."]], max_new_tokens=2))
        2
        """
        sampling = merged(sampling, settings)
        return self._all(prompts, lambda prompt, **how: Request[Completion](self._write(prompt, sampling, **how)))

    @overload
    def classify(
        self, prompts: list[list[Any]], choices: Sequence[str], *, mean: bool = False
    ) -> list[Classification]: ...

    @overload
    def classify(self, prompts: Prompt, choices: Sequence[str], *, mean: bool = False) -> Classification: ...

    def classify(
        self, prompts: Prompt | list[list[Any]], choices: Sequence[str], *, mean: bool = False
    ) -> Classification | list[Classification]:
        """Weighs texts as the continuation of a prompt, by the sum of the log-probabilities of their tokens, or by the
        mean; or of many prompts, which are told apart as :meth:`generate` does it.

        >>> import flamant
        >>> with flamant.Engine() as engine:
        ...     found = engine.classify("kep.", ["kep", "mul"])
        >>> round(sum(choice.probability for choice in found.choices), 9)
        1.0
        """
        weigh = partial(self._weigh, choices=choices, mean=mean)
        return self._all(prompts, lambda prompt, **how: Request[Classification](weigh(prompt, **how)))

    @overload
    def score(self, prompts: list[list[Any]], *, logits: bool = False, top_logprobs: int = 0) -> list[Score]: ...

    @overload
    def score(self, prompts: Prompt, *, logits: bool = False, top_logprobs: int = 0) -> Score: ...

    def score(
        self, prompts: Prompt | list[list[Any]], *, logits: bool = False, top_logprobs: int = 0
    ) -> Score | list[Score]:
        """The log-probability of each token of a prompt given all before it, and all logits, if they are wanted; or of
        many prompts, which are told apart as :meth:`generate` does it."""
        submit = partial(self._submit, logits=logits, top_logprobs=top_logprobs)
        return self._all(prompts, lambda prompt, **how: Request[Score](submit(prompt, **how)))

    def loglikelihood(self, prompt: Prompt, continuations: Sequence[str]) -> list[tuple[float, bool]]:
        """For each text the log-likelihood of its tokens after the prompt, and whether greedy search would write it:
        what lm-eval and lmms-eval call so. In the order given.

        >>> import flamant
        >>> with flamant.Engine() as engine:
        ...     [(_, kep), (_, mul)] = engine.loglikelihood("kep.", ["kep", "mul"])
        ...     kep and mul
        False
        """
        return Request[list[tuple[float, bool]]](self._weigh(prompt, continuations, ranked=False)).result()

    def chat(
        self, messages: Sequence[Mapping[str, Any]], sampling: Sampling | None = None, **settings: Any
    ) -> Completion:
        """Answers a conversation: turns as OpenAI has them, in the words that the family was trained with.

        A turn is ``{"role": ..., "content": ...}``; the role is ``system``, ``user`` or ``assistant``, the content a
        text or parts as those of a prompt. Images of OpenAI's parts are data URIs; nothing is fetched.

        >>> import flamant
        >>> with flamant.Engine() as engine:
        ...     engine.chat([{"role": "user", "content": "kep"}]).finish_reason
        'stop'
        """
        return Request[Completion](self._write(messages, merged(sampling, settings), chat=True)).result()

    def lines(self, lines: Sequence[str]) -> list[str]:
        """Answers lines of ``flamant batch``, side by side, and waits: for each the JSON that ``batch`` writes of it,
        in the order of the lines.

        A line that is no request, or whose request fails, has an answer with ``error``. Paths in lines are relative to
        the working directory.

        >>> import flamant
        >>> with flamant.Engine() as engine:
        ...     engine.lines(['{"id": 7}'])
        ['{"id":7,"error":"request: prompt: expected a prompt, found none","kind":"invalid_file"}']
        """
        return self._engine.lines(list(lines))

    def features(self, images: Sequence[Image | Video]) -> "memoryview[float]":
        """What the vision encoder makes of images, for retrieval: unit vectors as float32 of the shape (images, width),
        which ``numpy.asarray`` takes without a copy. Their products are cosines."""
        numbers, rows = self._engine.features(list(images))
        return matrix(numbers, len(numbers) // (4 * rows))

    def render(self, prompt: Prompt) -> Rendered:
        """The prompt as the model reads it: the text with all markers, its tokens, and which images each token sees."""
        return self._engine.render(prompt, False)

    def render_chat(self, messages: Sequence[Mapping[str, Any]]) -> Rendered:
        """A conversation as the model reads it."""
        return self._engine.render(messages, True)

    def stats(self) -> Stats:
        """Counts since the engine was opened, and what it holds now; waits for nothing."""
        return self._engine.stats()

    def close(self) -> None:
        """Takes no more requests. Those that run go on to their end, and then the model is closed."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        settings = self._settings
        return f"<flamant.Engine {settings['model'] or 'demo'!s} on {settings['device']}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return reopened, (type(self), self._settings)

    def _submit(
        self,
        prompt: Any,
        sampling: Sampling | None = None,
        choices: list[str] | None = None,
        *,
        ranked: bool = True,
        mean: bool = False,
        logits: bool = False,
        top_logprobs: int = 0,
        chat: bool = False,
        waits: bool = False,
        keeps_tokens: bool = True,
    ) -> _flamant.Events:
        return self._engine.submit(
            prompt,
            sampling,
            choices,
            ranked=ranked,
            mean=mean,
            logits=logits,
            top_logprobs=top_logprobs,
            chat=chat,
            waits=waits,
            keeps_tokens=keeps_tokens,
        )

    def _write(self, prompt: Any, sampling: Sampling, **how: bool) -> _flamant.Events:
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        stop = (sampling.stop,) if isinstance(sampling.stop, str) else sampling.stop
        return self._submit(prompt, replace(sampling, seed=seed, stop=list(stop)), None, **how)

    def _weigh(self, prompt: Any, choices: Sequence[str], **how: bool) -> _flamant.Events:
        if isinstance(choices, str):
            raise TypeError("choices: expected a list of texts, found one text")
        return self._submit(prompt, None, list(choices), **how)

    def _all(self, prompts: Any, submit: Callable[..., Request[T]]) -> T | list[T]:
        """Answers one prompt or many; where that is interrupted, nothing goes on."""
        many = isinstance(prompts, list) and all(isinstance(prompt, list) for prompt in prompts)
        requests: list[Request[T]] = []
        try:
            for prompt in prompts if many else [prompts]:
                requests.append(submit(prompt, waits=many, keeps_tokens=False))
            answers = [request.result() for request in requests]
        except BaseException:
            for request in requests:
                request.cancel()
            raise
        return answers if many else answers[0]


def prefix_key(messages: Sequence[Mapping[str, Any]]) -> str:
    """Names what stands before the last turn of the user, as ``/v1/render`` does: conversations of the same key begin
    alike. A router that sends a key to the same server always (``x-session-id`` for Ray) finds its shots computed.

    >>> shots = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "kep."}]
    >>> one, other = ([*shots, {"role": "user", "content": asked}] for asked in "bc")
    >>> prefix_key(one) == prefix_key(other)
    True
    """
    return _flamant.prefix_key(messages)


def refuse(task: str, sampling: Sampling | None, settings: dict[str, Any]) -> None:
    """Settings that a task has not."""
    if settings or sampling is not None:
        found = ", ".join(settings) or "sampling"
        raise TypeError(f"submit: expected settings of the task {task}, found {found}")


def merged(sampling: Sampling | None, settings: dict[str, Any]) -> Sampling:
    """A sampling with other settings."""
    return replace(sampling or Sampling(), **settings)


def reopened(kind: type[Engine], settings: dict[str, Any]) -> Engine:
    """What an engine is unpickled by."""
    return kind(**settings)


def downloaded(name: str) -> str:
    """The folder of a model of Hugging Face's hub, which is fetched if it is not there."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError("download: expected the package huggingface-hub: pip install 'flamant[hub]'") from error
    patterns = ["*.safetensors", "*.json", "tokenizer*"]
    owner_and_name, _, revision = name.partition("@")
    return str(snapshot_download(owner_and_name, revision=revision or None, allow_patterns=patterns))
