"""What is asked and answered: plain values, which can be compared and pickled."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, Union

if TYPE_CHECKING:
    import numpy
    import numpy.typing
    import PIL.Image

Image: TypeAlias = Union[
    "PIL.Image.Image", "numpy.typing.NDArray[numpy.uint8]", bytes, bytearray, "memoryview[int]", PathLike[str]
]
"""An image: one of Pillow; ``uint8`` of the shape (height, width), (height, width, 3) or (height, width, 4), as numpy
has it; the bytes of a file (PNG, JPEG, WebP, GIF, BMP); or a path, which is no ``str``: strings are text."""


@dataclass(frozen=True, slots=True)
class Video:
    """A video, which is one image to the text around it.

    ``source`` is the path of a folder of images, an animation or a video file (which needs ``ffmpeg``), or the frames
    themselves. Of a file ``fps`` frames a second are looked at, and ``frames`` of them are kept at most, evenly spread.
    """

    source: str | PathLike[str] | Sequence[Image]
    _: KW_ONLY
    fps: float = 1.0
    frames: int = 8


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is written; by default the most likely token each time."""

    max_new_tokens: int = 64
    """Most tokens to write."""
    _: KW_ONLY
    temperature: float = 0.0
    """0: always the most likely token; else logits are divided by it."""
    top_k: int = 0
    """Only the k most likely tokens; 0: all."""
    top_p: float = 1.0
    """Only the most likely tokens that together reach this probability."""
    min_p: float = 0.0
    """Only tokens at least this share as likely as the most likely one."""
    repetition_penalty: float = 1.0
    """Logits of tokens seen before are divided by it if positive, else multiplied."""
    no_repeat_ngram_size: int = 0
    """No run of so many tokens occurs twice; 0: off."""
    seed: int | None = None
    """From 0 to 2**64 - 1; none: at random, and told in the completion. The same seed has the same answer, whatever
    else runs."""
    stop: Sequence[str] = ()
    """Texts that end the answer; they are not part of it. A single string is one text."""
    num_beams: int = 1
    """Beams of a beam search; 1: none."""
    length_penalty: float = 1.0
    """Above 0, a beam search prefers longer answers; from -5 to 5."""
    ignore_eos: bool = False
    """Whether to go on past the tokens that end an answer."""
    top_logprobs: int = 0
    """How many of the likeliest tokens are told in the place of each token written: at most 20, and none of a beam
    search."""


class Token(NamedTuple):
    """A token that was written."""

    text: str
    """The text that is settled by it: whole characters, and nothing that may still become a stop text."""
    id: int
    logprob: float
    top: list[tuple[int, float]]
    """The likeliest tokens in its place with their log-probabilities, if ``top_logprobs`` asks for them."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request took."""

    prompt_tokens: int
    cached_tokens: int
    """Tokens that were found in pages already there instead of being computed."""
    completion_tokens: int
    images: int
    images_encoded: int
    """Images that had to be encoded."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds spent."""

    queue_seconds: float
    media_seconds: float
    prompt_seconds: float
    decode_seconds: float


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model wrote."""

    text: str
    """Without special tokens and without the stop text."""
    token_ids: list[int]
    """All tokens written, a stop token included."""
    logprobs: list[float]
    """The log-probability of each, in nats."""
    top_logprobs: list[list[tuple[int, float]]]
    """For each the likeliest tokens in its place with their log-probabilities, likeliest first; empty if none are asked
    for."""
    finish_reason: Literal["stop", "length"]
    seed: int
    usage: Usage
    timings: Timings


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers offered."""

    text: str
    token_ids: list[int]
    sum: float
    """Of the log-probabilities of its tokens."""
    mean: float
    """Of the same."""
    is_greedy: bool
    """Whether greedy search would write it: each of its tokens is the likeliest after those before it."""
    probability: float
    """Its share of the likelihood of all choices, by what they are ranked by."""


@dataclass(frozen=True, slots=True)
class Classification:
    """Choices that were weighed."""

    choice: str
    """The likeliest."""
    choices: list[Choice]
    """The likeliest first."""
    usage: Usage
    timings: Timings


@dataclass(frozen=True, slots=True)
class Score:
    """A prompt's own log-probabilities."""

    token_ids: list[int]
    tokens: list[str]
    logprobs: list[float | None]
    """For each token its log-probability given all before it; none for the first."""
    top_logprobs: list[list[tuple[int, float]]]
    """For each token the likeliest in its place, none for the first; empty if none are asked for."""
    usage: Usage
    timings: Timings
    logits_bytes: bytes | None = field(repr=False)
    """Rows of float32, one a token, if they were asked for."""
    vocabulary: int
    """Numbers of a row."""

    @property
    def logits(self) -> "memoryview[float] | None":
        """The logits that follow each token: float32 of the shape (tokens, vocabulary), which ``numpy.asarray`` takes
        without a copy; none if they were not asked for."""
        return None if self.logits_bytes is None else matrix(self.logits_bytes, self.vocabulary)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt as the model reads it."""

    text: str
    """With all markers."""
    token_ids: list[int]
    tokens: list[str]
    sees: list[list[int]]
    """For each token the images that it sees, by their number in the prompt."""


@dataclass(frozen=True, slots=True)
class Pages:
    """The pages of a cache."""

    total: int
    held: int
    """Those that requests hold."""
    cached: int
    """Those that are kept for their content, until their room is needed."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the engine was opened, and what it holds now."""

    requests_waiting: int
    requests_running: int
    requests_finished: int
    requests_cancelled: int
    requests_failed: int
    steps: int
    tokens_computed: int
    tokens_cached: int
    tokens_written: int
    images_encoded: int
    images_cached: int
    preemptions: int
    text_pages: Pages
    """Of 16 tokens."""
    media_pages: Pages
    """Of 64 rows of an image."""
    schedule_seconds: float
    """Of putting steps together."""
    media_seconds: float
    """Of encoding images."""
    text_seconds: float
    """Of running tokens."""
    commit_seconds: float
    """Of choosing tokens and writing text."""


def matrix(numbers: bytes, columns: int) -> "memoryview[float]":
    """Rows of float32."""
    return memoryview(numbers).cast("f", (len(numbers) // (4 * columns), columns))
