"""A real Ray on the loopback interface: replicas of the server under Serve, lines of `flamant batch` under Data.

One cluster for all tests; `tools/test_python.sh ray` makes the environment and runs them. Nothing here asserts how
long something takes, or which replica answers a request without a key.
"""

import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# Read when Ray is imported.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import httpx2
import openai
import pytest
import ray
import ray.data
from ray import serve

import flamant
import flamant.ray

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "models/demo"
SIGNS = ("kep.", "mul.", "rob.")


def prompts(count: int, seed: int = 0) -> list[str]:
    """Texts of signs, each another one, long enough to fill a page of 16 tokens."""
    draw = random.Random(seed)
    return ["".join(draw.choices(SIGNS, k=24)) for _ in range(count)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[int]:
    """A cluster of one node, with Serve; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Counts of processors are what Ray gives out, not what there is.
    ray.init(
        num_cpus=8,
        include_dashboard=False,
        object_store_memory=100 << 20,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        yield port
    finally:
        serve.shutdown()
        ray.shutdown()


@pytest.fixture(scope="module")
def replicas(cluster: int) -> str:
    """Two replicas of the demo model; their address."""
    deployment = flamant.ray.deployment(
        engine={"device": "cpu", "max_sequences": 8},
        num_replicas=2,
        ray_actor_options={"num_cpus": 1},
        health_check_period_s=1.0,
    )
    serve.run(deployment.bind(), name="demo", route_prefix="/")
    return f"http://127.0.0.1:{cluster}"


@pytest.fixture(scope="module")
def engine() -> Iterator[flamant.Engine]:
    """The same model, alone."""
    with flamant.Engine() as engine:
        yield engine


def client(address: str, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", **options)


def completion(address: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> dict[str, Any]:
    """A request without retries; the answer's JSON."""
    headers = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(f"{address}/v1/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def eventually(what: str, holds: Callable[[], bool]) -> None:
    """Waits for what must come."""
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.2)


def test_replicas_answer_as_one_engine(replicas: str, engine: flamant.Engine) -> None:
    asked = prompts(24)
    with ThreadPoolExecutor(8) as threads:
        bodies = [{"prompt": prompt, "max_tokens": 12, "ignore_eos": True} for prompt in asked]
        found = list(threads.map(lambda body: completion(replicas, body), bodies))
    for prompt, answer in zip(asked, found, strict=True):
        expected = engine.generate(prompt, max_new_tokens=12, ignore_eos=True)
        assert answer["choices"][0]["text"] == expected.text
        assert answer["usage"]["prompt_tokens"] == expected.usage.prompt_tokens
        assert answer["usage"]["completion_tokens"] == 12
    # What the server refuses comes through as it said it.
    name = client(replicas).models.list().data[0].id
    with pytest.raises(openai.BadRequestError) as refused:
        client(replicas).completions.create(model=name, prompt="kep.", extra_body={"num_beam": 3})
    assert refused.value.code == "unknown_parameter"


def test_a_stream_comes_through_and_ends_when_it_is_closed(replicas: str, engine: flamant.Engine) -> None:
    name = client(replicas).models.list().data[0].id
    stream = client(replicas).completions.create(
        model=name, prompt="kep.mul.", max_tokens=20, stream=True, extra_body={"ignore_eos": True}
    )
    pieces = [chunk.choices[0].text for chunk in stream if chunk.choices]
    assert len(pieces) > 2
    assert "".join(pieces) == engine.generate("kep.mul.", max_new_tokens=20, ignore_eos=True).text

    key = {"x-session-id": "one that hangs up"}

    def cancelled() -> float:
        with urllib.request.urlopen(urllib.request.Request(f"{replicas}/metrics", headers=key)) as response:
            lines = response.read().decode().splitlines()
        (line,) = [line for line in lines if line.startswith("flamant_requests_cancelled_total ")]
        return float(line.split()[1])

    before = cancelled()
    with client(replicas).completions.create(
        model=name, prompt="kep.", max_tokens=400, stream=True, extra_headers=key, extra_body={"ignore_eos": True}
    ) as stream:
        next(iter(stream))
    eventually("the closed stream is cancelled", lambda: cancelled() == before + 1)


def test_shots_stay_with_their_pages(replicas: str) -> None:
    for number, shots in enumerate(prompts(8, seed=1)):
        key = {"x-session-id": f"b3:{number}"}
        answers = [
            completion(replicas, {"prompt": shots + query, "max_tokens": 2}, key) for query in (*SIGNS, *SIGNS)
        ]
        cached = [answer["usage"]["prompt_tokens_details"]["cached_tokens"] for answer in answers]
        # Only the first has to compute them; it may begin as others do.
        assert cached[0] < 80 and all(tokens >= 80 for tokens in cached[1:]), cached


def running() -> list[str]:
    """Names of the replicas' actors."""
    actors = ray.util.list_named_actors(all_namespaces=True)
    return [actor["name"] for actor in actors if actor["name"].startswith("SERVE_REPLICA::demo#")]


def test_a_killed_replica_loses_nothing_that_is_asked_again(replicas: str, engine: flamant.Engine) -> None:
    asked = prompts(16, seed=2)
    patient = client(replicas, max_retries=8)
    name = patient.models.list().data[0].id
    begun = threading.Semaphore(0)
    broken = []

    def ask(prompt: str) -> str:
        while True:
            pieces = []
            try:
                stream = patient.completions.create(
                    model=name, prompt=prompt, max_tokens=300, stream=True, extra_body={"ignore_eos": True}
                )
                for chunk in stream:
                    pieces.append(chunk.choices[0].text)
                    begun.release()
                    if chunk.choices[0].finish_reason:
                        return "".join(pieces)
            except (openai.APIError, httpx2.TransportError):
                pass
            broken.append(prompt)

    victim = running()[0]
    with ThreadPoolExecutor(16) as threads:
        answers = [threads.submit(ask, prompt) for prompt in asked]
        # A replica takes ten: with sixteen, each has some that have begun soon after the first.
        for _ in range(200):
            begun.acquire()
        ray.kill(ray.get_actor(victim, namespace="serve"), no_restart=True)
        texts = [answer.result() for answer in answers]
    assert texts == [engine.generate(prompt, max_new_tokens=300, ignore_eos=True).text for prompt in asked]
    assert broken, "none ran on the replica that was killed"

    def states() -> dict[str, int]:
        return dict(serve.status().applications["demo"].deployments["Flamant"].replica_states)

    # Ray starts another one.
    eventually("two replicas again", lambda: victim not in running() and states() == {"RUNNING": 2})


def test_what_is_too_much_is_told_to_come_again(cluster: int, replicas: str) -> None:
    tight = flamant.ray.deployment(
        engine={"device": "cpu", "max_sequences": 1},
        ray_actor_options={"num_cpus": 1},
        max_ongoing_requests=1,
        max_queued_requests=1,
    )
    serve.run(tight.bind(), name="tight", route_prefix="/tight")
    address = f"http://127.0.0.1:{cluster}/tight"
    body = {"prompt": "kep.", "max_tokens": 300, "ignore_eos": True}

    def once(_: int) -> tuple[int, str | None]:
        try:
            completion(address, body)
        except urllib.error.HTTPError as error:
            return error.code, error.headers["Retry-After"]
        return 200, None

    with ThreadPoolExecutor(12) as threads:
        ends = list(threads.map(once, range(12)))
    assert set(ends) == {(200, None), (429, "1")}, ends
    patient = client(address, max_retries=20)
    name = patient.models.list().data[0].id
    with ThreadPoolExecutor(6) as threads:
        settings: dict[str, Any] = {"model": name, "prompt": "kep.", "max_tokens": 100}
        settings["extra_body"] = {"ignore_eos": True}
        answers = threads.map(lambda _: patient.completions.create(**settings), range(6))
        texts = {answer.choices[0].text for answer in answers}
    assert len(texts) == 1
    serve.delete("tight")


def test_defaults_fit_the_engine() -> None:
    made = flamant.ray.deployment(engine={"max_sequences": 40}, autoscaling_config={"max_replicas": 3})
    assert (made.max_ongoing_requests, made.max_queued_requests) == (50, 160)
    scaling = made._deployment_config.autoscaling_config
    assert (scaling.max_replicas, scaling.target_ongoing_requests) == (3, 20)
    made = flamant.ray.deployment(max_ongoing_requests=7, num_replicas=3, server={"request_timeout": 20})
    assert (made.max_ongoing_requests, made.num_replicas) == (7, 3)
    assert made._deployment_config.graceful_shutdown_timeout_s == 30


def test_a_ray_without_the_router_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flamant.ray, "_ROUTER", ("ray.serve.experimental.none", "None"))
    with pytest.warns(RuntimeWarning, match=r"this Ray has no ray\.serve\.experimental\.none\.None"):
        flamant.ray.deployment()


def test_lines_are_answered_as_batch_answers_them(cluster: int, tmp_path: Path) -> None:
    lines = []
    for number, prompt in enumerate(prompts(40, seed=3)):
        parts = [{"text": prompt}]
        lines.append(
            [
                json.dumps({"id": f"request {number}", "prompt": parts, "max_new_tokens": 5}),
                json.dumps({"prompt": parts, "task": "classify", "choices": ["kep", "mul"]}),
                json.dumps({"id": number, "prompt": parts, "task": "score"}),
                json.dumps({"id": number, "prompt": parts, "num_beam": 2}),
                "no JSON",
            ][number % 5]
        )
    source = tmp_path / "requests.jsonl"
    source.write_text("\n".join(lines) + "\n")
    answers = (
        ray.data.read_text(str(source))
        .repartition(4)
        .map_batches(
            flamant.ray.Lines,
            fn_constructor_kwargs={"device": "cpu", "max_sequences": 4},
            batch_size=8,
            num_cpus=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=2),
        )
    )
    rows = answers.take_all()

    target = tmp_path / "answers.jsonl"
    command = [sys.executable, "-m", "flamant", "batch", str(DEMO), "--input", str(source), "--output", str(target)]
    # Three of five lines are requests: the exit code is that of some that have an error.
    assert subprocess.run(command, check=False, capture_output=True).returncode == 3
    told = [json.loads(line) for line in target.read_text().splitlines()[1:]]

    def bare(answer: dict[str, Any]) -> str:
        """What depends neither on what runs beside it nor on where the line stands."""
        kept = {key: answer[key] for key in answer if key not in ("line", "request", "timings", "usage")}
        if "error" in kept:
            kept["error"] = re.sub(r"^(request|.*: line \d+)", "", kept["error"])
        return json.dumps(kept, sort_keys=True)

    assert sorted(bare(json.loads(row["answer"])) for row in rows) == sorted(map(bare, told))
    assert sum("error" in json.loads(row["answer"]) for row in rows) == 16
    names = [f"request {number}" if number % 5 == 0 else str(number) for number in range(40) if number % 5 in (0, 2, 3)]
    assert sorted(row["id"] for row in rows if row["id"] is not None) == sorted(names)


def test_the_examples_run(cluster: int, replicas: str, engine: flamant.Engine, tmp_path: Path) -> None:
    """On this cluster. The last test: the example of Serve ends it."""
    serve.delete("demo")
    source, target = tmp_path / "requests.jsonl", tmp_path / "answers"
    lines = [{"id": number, "prompt": [{"text": prompt}]} for number, prompt in enumerate(prompts(9, seed=4))]
    source.write_text("\n".join(map(json.dumps, lines)))
    address = ray.get_runtime_context().gcs_address
    environment = {**os.environ, "RAY_ADDRESS": address, "PORT": str(cluster)}

    def ran(*arguments: str | Path) -> str:
        command = [sys.executable, ROOT / "examples/ray" / arguments[0], *arguments[1:]]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    ran("batch.py", source, target)
    rows = ray.data.read_parquet(str(target)).take_all()
    assert sorted(row["id"] for row in rows) == [str(number) for number in range(9)]
    assert all("text" in json.loads(row["answer"]) for row in rows)
    told = ran("serve.py")
    expected = engine.generate("kep.mul.kep.mul.", max_new_tokens=8).text
    assert told.splitlines()[-1] == expected, told
