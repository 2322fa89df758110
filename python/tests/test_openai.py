"""OpenAI's own client against the program: what it sends is understood, and what comes back is what its types say."""

import base64
import contextlib
import io
import threading
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from PIL import Image

import flamant
from conftest import sign
from serving import serving


Client = Any
"""`openai.OpenAI`, whose types do not know parts in prompts and what stands beside OpenAI's fields."""


def uri(number: int) -> str:
    """A sign as a data URI."""
    png = io.BytesIO()
    Image.fromarray(sign(number)).save(png, format="PNG")
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()


def part(number: int) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": uri(number)}}


def text(said: str) -> dict[str, object]:
    return {"type": "text", "text": said}


PROMPT = [part(1), text("kep."), part(2), text("mul."), part(1)]
MESSAGES = [
    {"role": "user", "content": [part(1)]},
    {"role": "assistant", "content": "kep."},
    {"role": "user", "content": [part(2)]},
    {"role": "assistant", "content": "mul"},
    {"role": "user", "content": [part(1)]},
]
DRAWN = {"max_tokens": 40, "temperature": 1.5, "seed": 7, "extra_body": {"ignore_eos": True}}


@contextlib.contextmanager
def clients(*arguments: str, key: str = "none", **environment: str) -> Iterator[Client]:
    """A client of a server of its own, which has read its model."""
    with (
        serving("--demo", *arguments, **environment) as address,
        OpenAI(base_url=address + "/v1", api_key=key, max_retries=0) as client,
    ):
        client.with_options(max_retries=20).models.list()
        yield client


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with clients() as client:
        yield client


def test_models(client: Client) -> None:
    (model,) = client.models.list().data
    assert model.id == "demo" and client.models.retrieve("demo").owned_by == "flamant"


def test_completions_of_interleaved_parts(client: Client) -> None:
    whole = client.completions.create(model="demo", prompt=PROMPT, logprobs=2, n=2, **DRAWN)
    assert [choice.index for choice in whole.choices] == [0, 1]
    first = whole.choices[0]
    assert first.finish_reason == "length" and len(first.text) > 20
    assert "".join(first.logprobs.tokens) == first.text and len(first.logprobs.top_logprobs) == len(first.text)
    assert whole.usage.completion_tokens == 80 and whole.usage.prompt_tokens > 10
    assert whole.model_extra["flamant"]["images"] == 3 and whole.system_fingerprint.startswith("fp_")
    chunks = client.completions.create(model="demo", prompt=PROMPT, stream=True, **DRAWN)
    assert "".join(chunk.choices[0].text for chunk in chunks) == first.text


def test_chats(client: Client) -> None:
    whole = client.chat.completions.create(model="demo", messages=MESSAGES, logprobs=True, top_logprobs=3)
    (choice,) = whole.choices
    assert choice.message.role == "assistant" and choice.message.content in ("kep", "mul")
    assert choice.finish_reason == "stop"
    tokens = choice.logprobs.content
    assert bytes(byte for token in tokens for byte in token.bytes).decode().startswith(choice.message.content)
    assert all(len(token.top_logprobs) == 3 for token in tokens)
    again = MESSAGES[:-1] + [MESSAGES[-1], {"role": "assistant", "content": choice.message.content}, MESSAGES[2]]
    more = client.chat.completions.create(model="demo", messages=again)
    assert more.usage.prompt_tokens > whole.usage.prompt_tokens
    assert more.usage.prompt_tokens_details.cached_tokens > 0


def test_streams_with_usage(client: Client) -> None:
    settings = {"model": "demo", "messages": MESSAGES, "max_completion_tokens": 8, "n": 2}
    whole = client.chat.completions.create(**settings)
    options = {"include_usage": True}
    *chunks, last = client.chat.completions.create(**settings, stream=True, stream_options=options)
    for choice in whole.choices:
        pieces = [piece for chunk in chunks for piece in chunk.choices if piece.index == choice.index]
        assert pieces[0].delta.role == "assistant" and pieces[-1].finish_reason == choice.finish_reason
        assert "".join(piece.delta.content or "" for piece in pieces) == choice.message.content
    assert last.choices == [] and last.usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks)


def test_the_helper_for_streams(client: Client) -> None:
    with client.chat.completions.stream(model="demo", messages=MESSAGES, max_tokens=8) as stream:
        said = "".join(event.delta for event in stream if event.type == "content.delta")
        assert stream.get_final_completion().choices[0].message.content == said


def test_decisions(client: Client) -> None:
    image = {"type": "input_image", "image_url": uri(1)}
    decision = client.decisions.create(
        model="demo",
        input=[{"role": "user", "content": [image]}, {"role": "assistant", "content": "kep."}, {"role": "user", "content": [image]}],
        questions=[
            {"type": "choice", "name": "sign", "instructions": "", "choices": [{"value": "kep"}, {"value": "zzz"}]},
            {"type": "predicate", "instructions": "kep"},
            {"type": "score", "instructions": "", "levels": [{"label": "a"}, {"label": "b", "description": "more"}]},
        ],
    )
    choice, predicate, score = decision.answers
    assert choice.type == "choice" and choice.name == "sign" and choice.choice == "kep"
    assert abs(sum(told.probability for told in choice.probabilities) - 1) < 1e-9 and 0 < choice.confidence <= 1
    assert predicate.type == "predicate" and predicate.name is None and 0 < predicate.probability < 1
    assert score.type == "score" and 0 < score.score < 1 and [told.value for told in score.probabilities] == [0, 1]
    assert decision.usage.input_tokens > 0 and decision.usage.output_tokens == 0


def test_choices(client: Client) -> None:
    body = {"structured_outputs": {"choice": ["kep", "mul"]}}
    answer = client.chat.completions.create(model="demo", messages=MESSAGES, extra_body=body)
    assert answer.choices[0].message.content in ("kep", "mul")


def test_errors_have_their_classes(client: Client) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.completions.create(model="gpt-6", prompt="kep.")
    assert unknown.value.code == "model_not_found" and unknown.value.param == "model"
    with pytest.raises(openai.BadRequestError) as misspelt:
        client.completions.create(model="demo", prompt="kep.", extra_body={"num_beam": 3})
    assert misspelt.value.code == "unknown_parameter" and misspelt.value.param == "num_beam"
    elsewhere = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
    with pytest.raises(openai.BadRequestError, match="nothing is fetched") as fetched:
        client.chat.completions.create(model="demo", messages=[{"role": "user", "content": [elsewhere]}])
    assert fetched.value.request_id
    with pytest.raises(openai.APIError) as late:
        body = {"ignore_eos": True, "timeout": 0.05}
        list(client.completions.create(model="demo", prompt="k", max_tokens=1500, stream=True, extra_body=body))
    assert late.value.code == "deadline"


def test_keys() -> None:
    with clients("--name", "mine", key="secret", FLAMANT_API_KEY="secret") as client:
        assert client.completions.create(model="mine", prompt="kep.", max_tokens=2).model == "mine"
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="wrong").models.list()


def test_a_full_house_is_waited_for() -> None:
    """More requests than there are places: all end well, since the client comes again when it is told to."""
    with clients("--max-sequences", "2", "--queue", "1") as client:
        crowd(client)


def crowd(client: Client) -> None:
    answers: list[str] = []
    faults: list[Exception] = []

    def ask(client: Client, number: int) -> None:
        try:
            settings = {"max_tokens": 100, "extra_body": {"ignore_eos": True}}
            answer = client.completions.create(model="demo", prompt=PROMPT, seed=number, **settings)
            answers.append(answer.choices[0].text)
        except Exception as fault:
            faults.append(fault)

    patient = client.with_options(max_retries=20)
    threads = [threading.Thread(target=ask, args=(patient, number)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(180)
    assert faults == [] and len(answers) == 8 and len(set(answers)) == 1
    refused: list[openai.RateLimitError] = []

    def hurry() -> None:
        try:
            client.completions.create(model="demo", prompt="k", max_tokens=1500, extra_body={"ignore_eos": True})
        except openai.RateLimitError as error:
            refused.append(error)

    threads = [threading.Thread(target=hurry) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(180)
    assert refused and all(error.code == "queue_full" for error in refused)
    assert all(1 <= int(error.response.headers["retry-after"]) <= 60 for error in refused)


def test_pixels_are_those_of_the_file(client: Client, engine: flamant.Engine) -> None:
    """An image through HTTP and the same through the package have the same answer."""
    whole = client.completions.create(model="demo", prompt=PROMPT, max_tokens=12)
    asked: list[flamant.Part] = [sign(1), "kep.", sign(2), "mul.", sign(1)]
    assert engine.generate(asked, max_new_tokens=12).text == whole.choices[0].text
