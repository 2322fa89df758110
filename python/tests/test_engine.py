"""Requests and answers of an engine in one thread, and what they are refused for."""

import doctest
import importlib
import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from conftest import DEMO, shots, sign

import flamant


@pytest.mark.parametrize("name", ["", "._engine", "._request", "._types", "._asgi"])
def test_the_examples_of_docstrings(name: str) -> None:
    module = importlib.import_module("flamant" + name)
    assert doctest.testmod(module, raise_on_error=True).failed == 0


def test_answers_are_those_of_the_program(
    engine: flamant.Engine, program: Callable[..., str], tmp_path: Path, png: Path
) -> None:
    """The very numbers that the command line prints for the same lines, whatever way they are asked."""
    prompt: list[Any] = [{"image": str(png)}, {"text": "kep."}, {"image": str(png)}]
    lines: list[dict[str, Any]] = [
        {"id": 1, "prompt": prompt, "max_new_tokens": 9, "ignore_eos": True},
        {"id": "two", "prompt": prompt, "temperature": 1.5, "seed": 7, "max_new_tokens": 20, "ignore_eos": True},
        {"id": 3, "prompt": prompt, "num_beams": 3, "max_new_tokens": 5},
        {"id": 4, "prompt": prompt, "task": "classify", "choices": ["kep", "mul", "zon"], "mean": True},
        {"id": 5, "prompt": prompt, "task": "score"},
        {"id": 7, "prompt": prompt, "top_logprobs": 2, "max_new_tokens": 3},
        {"id": 8, "prompt": prompt, "task": "score", "top_logprobs": 2},
        {"id": 6, "prompt": [{"text": "kep." * 9}], "stop": ["p"], "no_repeat_ngram_size": 2},
    ]
    requests, answers = tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
    requests.write_text("".join(json.dumps(line) + "\n" for line in lines))
    program("batch", str(DEMO), "-i", str(requests), "-o", str(answers))
    expected = {answer["id"]: answer for answer in map(json.loads, answers.read_text().splitlines()[1:])}
    assert len(expected) == len(lines)
    for line, answer in zip(lines, engine.lines([json.dumps(line) for line in lines]), strict=True):
        request = engine.submit(**line)
        found, told = plain(request.result()), json.loads(answer)
        assert request.id == told["id"] == line["id"]
        for key, value in expected[line["id"]].items():
            if key not in ("line", "request", "timings", "usage"):
                assert told[key] == value, (line, key)
                assert found[key] == value if key != "id" else True, (line, key)
        assert found["usage"]["prompt_tokens"] == expected[line["id"]]["usage"]["prompt_tokens"]


def plain(answer: Any) -> dict[str, Any]:
    """An answer as the JSON of the program has it."""
    from dataclasses import asdict

    fields = asdict(answer)
    for choice in fields.get("choices", []):
        choice["choice"] = choice.pop("text")
    if top := fields.pop("top_logprobs", None):
        fields["top_logprobs"] = [[{"token_id": id, "logprob": logprob} for id, logprob in place] for place in top]
    return fields


def test_a_list_of_lists_is_many_prompts(engine: flamant.Engine) -> None:
    one = engine.generate(["kep", "."], max_new_tokens=3)
    assert isinstance(one, flamant.Completion)
    many = engine.generate([["kep", "."], ["kep."]], max_new_tokens=3)
    assert [answer.text for answer in many] == [one.text, one.text]
    assert engine.generate([], max_new_tokens=3) == []
    # A list that holds something else is one prompt, in which a list is no part.
    with pytest.raises(flamant.PromptError, match="part 1: expected a str, an image, a Video or a dict, found list"):
        engine.generate(["kep.", ["mul."]])  # type: ignore[list-item]
    assert [found.choice for found in engine.classify([shots(), shots(sign(2))], ["kep", "mul"])] == ["kep", "mul"]
    assert [len(score.token_ids) for score in engine.score([["kep."], ["mul.kep."]])] == [5, 9]


def test_more_prompts_than_the_queue_holds() -> None:
    with flamant.Engine(max_sequences=2, queue=3) as engine:
        answers = engine.generate([["kep."]] * 40, max_new_tokens=2)
        assert len(answers) == 40 and len({answer.text for answer in answers}) == 1
        assert len(engine.lines(['{"prompt": [{"text": "kep."}], "max_new_tokens": 2}'] * 40)) == 40


def test_a_full_queue_is_told_from_other_limits() -> None:
    with flamant.Engine(max_sequences=1, queue=1) as engine:
        requests = []
        with pytest.raises(flamant.QueueFull, match="is over the limit of 1"):
            for _ in range(9):
                requests.append(engine.submit("kep.", max_new_tokens=400, ignore_eos=True))
        assert 1 <= len(requests) <= 3
        for request in requests:
            request.cancel()
        with pytest.raises(flamant.LimitError) as found:
            engine.submit("kep." * 1000)
        assert not isinstance(found.value, flamant.QueueFull)


def test_settings(engine: flamant.Engine) -> None:
    sampling = flamant.Sampling(8, temperature=2.0, seed=5)
    first = engine.generate(shots(), sampling)
    assert engine.generate(shots(), sampling).token_ids == first.token_ids
    assert engine.generate(shots(), sampling, temperature=0.0, stop="e").text == "k"
    assert engine.generate(shots(), sampling, max_new_tokens=1).token_ids == first.token_ids[:1]
    drawn = engine.generate(shots(), temperature=2.0, max_new_tokens=8)
    assert engine.generate(shots(), temperature=2.0, max_new_tokens=8, seed=drawn.seed).text == drawn.text
    wrong_settings: list[tuple[dict[str, Any], str]] = [
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"num_beams": 65}, "num_beams"),
        ({"no_repeat_ngram_size": 5000}, "no_repeat_ngram_size"),
        ({"stop": [""]}, "stop"),
        ({"stop": [3]}, "stop"),
        ({"max_new_tokens": -1}, "max_new_tokens"),
        ({"max_new_tokens": "many"}, "max_new_tokens"),
        ({"temperature": None}, "temperature"),
        ({"seed": 1 << 64}, "seed"),
    ]
    for settings, param in wrong_settings:
        with pytest.raises(flamant.SettingError) as wrong:
            engine.generate("kep.", **settings)
        assert wrong.value.param == param and isinstance(wrong.value, ValueError)
        assert pickle.loads(pickle.dumps(wrong.value)).param == param
    unknown: list[dict[str, Any]] = [{"max_tokens": 3}, {"task": "score", "temperature": 1.0}, {"task": "classify"}]
    for settings in unknown:
        with pytest.raises(TypeError):
            engine.submit("kep.", **settings)


def test_opening(tmp_path: Path) -> None:
    with pytest.raises(flamant.ModelError) as found:
        flamant.Engine(tmp_path / "none")
    assert str(tmp_path) in str(found.value) and found.value.param == "model"
    settings: list[tuple[dict[str, Any], str]] = [
        ({"device": "abacus"}, "device"),
        ({"dtype": "f8"}, "dtype"),
        ({"max_sequences": 0}, "max_sequences"),
        ({"context_max": 0}, "context_max"),
        ({"queue": -1}, "queue"),
        ({"context_max": 1 << 20}, "context_max"),
        ({"text_pages": 1}, "text_pages"),
        ({"chat_template": "none"}, "chat_template"),
    ]
    for setting, param in settings:
        with pytest.raises(flamant.SettingError) as wrong:
            flamant.Engine(**setting)
        assert wrong.value.param == param
    with flamant.Engine(context_max=64, max_batched_tokens=32, prefix_caching=False) as engine:
        assert engine.info["context_max"] == 64 and engine.info["limits"]["prefix_caching"] is False
    assert engine.info["family"] and "demo" in repr(engine)
    with pytest.raises(RuntimeError, match="the engine is closed"):
        engine.generate("kep.")


def test_what_runs_goes_on_when_an_engine_is_closed() -> None:
    engine = flamant.Engine()
    request = engine.submit("kep.", max_new_tokens=50, ignore_eos=True)
    engine.close()
    assert len(request.result().token_ids) == 50


def test_scores_and_likelihoods_agree(engine: flamant.Engine) -> None:
    score = engine.score(shots() + ["kep."], logits=True)
    logits = numpy.asarray(score.logits)
    assert logits.shape == (len(score.token_ids), score.vocabulary) and logits.dtype == numpy.float32
    loglikelihoods = engine.loglikelihood(shots(), ["kep.", "mul"])
    found = engine.classify(shots(), ["kep.", "mul"])
    assert loglikelihoods == [(choice.sum, choice.is_greedy) for choice in found.choices]
    assert [greedy for _, greedy in loglikelihoods] == [True, False]
    assert engine.loglikelihood(shots(), ["mul", "kep."]) == loglikelihoods[::-1]
    shifted = logits - logits.max(axis=1, keepdims=True)
    logprobs = shifted - numpy.log(numpy.exp(shifted).sum(axis=1, keepdims=True))
    for position, (token, logprob) in enumerate(zip(score.token_ids[1:], score.logprobs[1:], strict=True)):
        assert logprob is not None and math.isclose(logprobs[position, token], logprob, abs_tol=1e-4)
    assert score.logprobs[0] is None and engine.score("kep.").logits is None
    [choice] = engine.classify(shots(), ["kep."]).choices
    tail = [logprob for logprob in score.logprobs[-4:] if logprob is not None]
    assert math.isclose(choice.sum, sum(tail), abs_tol=1e-4) and choice.probability == 1.0


def test_the_likeliest_tokens(engine: flamant.Engine) -> None:
    request = engine.submit(shots(), top_logprobs=3, max_new_tokens=4, temperature=1.5, seed=1)
    streamed = [token.top for token in request]
    answer = request.result()
    assert answer.top_logprobs == streamed and all(len(top) == 3 for top in streamed)
    for token, logprob, top in zip(answer.token_ids, answer.logprobs, streamed, strict=True):
        assert top == sorted(top, key=lambda pair: -pair[1]) and top[0][1] >= logprob
        assert dict(top).get(token, logprob) == logprob
    score = engine.score(shots(), top_logprobs=2)
    assert score.top_logprobs[0] == [] and all(len(top) == 2 for top in score.top_logprobs[1:])
    assert engine.generate(shots()).top_logprobs == engine.score(shots()).top_logprobs == []
    assert engine.submit(shots(), task="score", top_logprobs=2).result().top_logprobs == score.top_logprobs


def test_values_are_pickled_and_compared(engine: flamant.Engine) -> None:
    answers = [
        engine.generate(shots()),
        engine.classify(shots(), ["kep", "mul"]),
        engine.score(shots(), logits=True),
        engine.render(shots()),
        engine.stats(),
        flamant.Sampling(3),
    ]
    for answer in answers:
        assert pickle.loads(pickle.dumps(answer)) == answer
        assert "\n" not in repr(answer)


def test_what_a_prompt_reads_as(engine: flamant.Engine) -> None:
    rendered = engine.render(shots())
    assert rendered.text.count("<image>") == 3 and len(rendered.tokens) == len(rendered.token_ids) == len(rendered.sees)
    assert rendered.sees[0] == [] and rendered.sees[-1] == [2]
    wrong: flamant.Prompt
    for wrong in ["<image>", ["<ima", "ge>"]]:
        with pytest.raises(flamant.PromptError) as found:
            engine.render(wrong)
        assert found.value.param == "prompt"


def test_conversations(engine: flamant.Engine, png: Path) -> None:
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": [sign(1)]},
        {"role": "assistant", "content": "kep."},
        {"role": "user", "content": [{"type": "image", "image": sign(2)}]},
        {"role": "assistant", "content": [{"type": "text", "text": "mul."}]},
        {"role": "user", "content": [{"type": "image", "image": png}]},
    ]
    assert engine.render_chat(turns).token_ids == engine.render(shots()).token_ids
    assert engine.chat(turns).text.removesuffix(".") == engine.generate(shots()).text.removesuffix(".")
    for wrong in [
        [],
        [{"role": "user"}],
        [{"role": "cook", "content": "kep"}],
        [{"role": "assistant", "content": "kep"}],
    ]:
        with pytest.raises(flamant.PromptError):
            engine.chat(wrong)
    with pytest.raises(flamant.PromptError, match="nothing is fetched"):
        engine.chat(
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]}]
        )


def test_templates_of_conversations(engine: flamant.Engine, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "kep"}]
    path = tmp_path / "template.json"
    path.write_text('{"user_before": "mul.", "answer_before": "zon"}')
    with flamant.Engine(chat_template=str(path)) as other:
        assert other.render_chat(turns).text == engine.render("mul.kepzon").text
    with flamant.Engine(chat_template="raw") as other:
        assert other.render_chat(turns).text == engine.render("kep").text


def test_features(engine: flamant.Engine) -> None:
    view = engine.features([sign(1), sign(2), flamant.Video([sign(1)])])
    features = numpy.asarray(view)
    assert features.dtype == numpy.float32 and features.shape[0] == 3 and not features.flags.writeable
    products = features @ features.T
    assert numpy.allclose(products.diagonal(), 1, atol=1e-5) and products[0, 1] < 0.999
    assert numpy.array_equal(features[0], features[2])
    with pytest.raises(flamant.PromptError, match="found a text"):
        engine.features([sign(1), "kep."])  # type: ignore[list-item]


def test_counts(engine: flamant.Engine) -> None:
    before = engine.stats()
    engine.generate(shots(), max_new_tokens=3, ignore_eos=True)
    after = engine.stats()
    assert after.requests_finished == before.requests_finished + 1 and after.tokens_written == before.tokens_written + 3
    assert (
        after.text_seconds > before.text_seconds
        and after.requests_running == 0
        and after.text_pages.held == 0 < after.text_pages.total
    )
