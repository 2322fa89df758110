"""The server's routes in servers of Python's: by hand, and in uvicorn over sockets."""

import asyncio
import base64
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from conftest import sign
from PIL import Image
from test_concurrency import comes_to, idle

import flamant


class Client:
    """What a server does with one request: hands in pieces of the body, and keeps what is sent."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.asked = 0
        self.sent: list[Any] = []
        self.gone = asyncio.Event()

    async def receive(self) -> Any:
        if self.pieces:
            self.asked += 1
            piece = self.pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self.pieces)}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])


def scope(method: str, path: str, **headers: str) -> dict[str, Any]:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    pairs.append((b"host", b"127.0.0.1"))
    return {"type": "http", "method": method, "path": path, "query_string": b"", "headers": pairs}


def ask(**settings: Any) -> bytes:
    return json.dumps({"prompt": "kep.", "max_tokens": 5, "ignore_eos": True, **settings}).encode()


async def test_a_request_and_its_answer(engine: flamant.Engine) -> None:
    application = flamant.asgi(engine, name="signs")
    client = Client(b"")
    await application(scope("GET", "/health"), client.receive, client.send)
    assert client.status == 200 and json.loads(client.body) == {"status": "ok"}
    assert client.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    body = ask()
    for pieces in ([body], [body[:7], body[7:8], b"", body[8:]]):
        client = Client(*pieces)
        request = scope("POST", "/v1/completions", content_type="application/json")
        await application(request, client.receive, client.send)
        assert client.status == 200 and client.asked == len(pieces)
        answer = json.loads(client.body)
        assert answer["model"] == "signs" and answer["usage"]["completion_tokens"] == 5
    client = Client(b"")
    await application(scope("GET", "/nowhere"), client.receive, client.send)
    assert client.status == 404
    # What is no path of HTTP, and what is one when it is quoted.
    for path, raw, status in [("/health", b"/he alth", 400), ("/no where/\u00e9", None, 404)]:
        client = Client(b"")
        await application(scope("GET", path) | {"raw_path": raw}, client.receive, client.send)
        assert client.status == status and json.loads(client.body)["error"]["code"]


async def test_one_key_for_the_same_shots(engine: flamant.Engine) -> None:
    """In Python and in the server, whatever way the images are given."""
    file = io.BytesIO()
    Image.fromarray(sign(1)).save(file, "png")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    keys: set[str] = set()
    images: list[tuple[dict[str, Any], str]] = [
        ({"type": "image_url", "image_url": {"url": url}}, "mul"),
        ({"image": sign(1)}, "zon"),
    ]
    for image, asked in images:
        turns: list[dict[str, Any]] = [{"role": "user", "content": [image]}, {"role": "assistant", "content": "kep."}]
        turns.append({"role": "user", "content": asked})
        keys.add(flamant.prefix_key(turns))
        if "type" in image:
            client = Client(json.dumps({"messages": turns}).encode())
            request = scope("POST", "/v1/render", content_type="application/json")
            await flamant.asgi(engine)(request, client.receive, client.send)
            keys.add(json.loads(client.body)["prefix_key"])
    assert len(keys) == 1 and flamant.prefix_key(turns[:1]) not in keys


async def test_a_body_that_is_too_large_is_not_read(engine: flamant.Engine) -> None:
    application = flamant.asgi(engine, max_body=1000, max_inflight_bytes=5000)
    client = Client(*[b" " * 400] * 100)
    request = scope("POST", "/v1/completions", content_type="application/json")
    await application(request, client.receive, client.send)
    assert client.status == 413 and client.asked <= 4


def long(stream: bool) -> bytes:
    """A body that is answered by eight requests of some tenths of a second."""
    return ask(max_tokens=480, stream=stream, n=8, temperature=1.0)


def running(engine: flamant.Engine) -> bool:
    return engine.stats().requests_running == 8


async def test_a_client_that_goes_ends_its_request(engine: flamant.Engine) -> None:
    application = flamant.asgi(engine)
    request = scope("POST", "/v1/completions", content_type="application/json")
    for stream in (True, False):
        # It says so, or its server cancels the task.
        for cancels in (True, False):
            before = idle(engine).requests_cancelled
            client = Client(long(stream))
            answer = asyncio.ensure_future(application(request, client.receive, client.send))
            while not running(engine):
                assert not answer.done()
                await asyncio.sleep(0.001)
            if cancels:
                answer.cancel()
            client.gone.set()
            await asyncio.wait({answer}, timeout=5)
            assert answer.done() and answer.cancelled() == cancels
            assert comes_to(engine, before + 8)


async def test_what_is_no_http(engine: flamant.Engine) -> None:
    application = flamant.asgi(engine)
    messages, sent = ["lifespan.startup", "lifespan.shutdown"], []

    async def receive() -> Any:
        return {"type": messages.pop(0)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await application({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    with pytest.raises(NotImplementedError, match="expected http, found websocket"):
        await application({"type": "websocket"}, receive, send)


async def test_who_may_come_in(engine: flamant.Engine) -> None:
    application = flamant.asgi(engine, api_keys=["one", "two"], hosts=["127.0.0.1"])
    for headers, status in [
        ({}, 401),
        ({"authorization": "Bearer three"}, 401),
        ({"authorization": "Bearer two"}, 200),
    ]:
        client = Client(b"")
        await application(scope("GET", "/v1/models", **headers), client.receive, client.send)
        assert client.status == status
    foreign = scope("GET", "/v1/models", authorization="Bearer one")
    foreign["headers"] = [(b"host", b"example.org"), foreign["headers"][0]]
    client = Client(b"")
    await application(foreign, client.receive, client.send)
    assert client.status == 403


def test_settings_of_the_routes(engine: flamant.Engine) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"queue": -1}, "queue"),
        ({"max_body": 0}, "max_body"),
        ({"body_timeout": -1}, "body_timeout"),
        ({"request_timeout": 0}, "request_timeout"),
        ({"api_keys": ["not one\u00e9"]}, "api_keys"),
        ({"log": "loud"}, "log"),
        ({"name": ""}, "name"),
    ]
    for settings, param in wrong:
        with pytest.raises(flamant.SettingError) as found:
            flamant.asgi(engine, **settings)
        assert found.value.param == param
    with pytest.raises(TypeError):
        flamant.asgi(engine, port=80)  # type: ignore[call-arg]
    with flamant.Engine() as closed:
        pass
    with pytest.raises(RuntimeError, match="the engine is closed"):
        flamant.asgi(closed)


@pytest.fixture(scope="module")
def address(engine: flamant.Engine) -> Iterator[tuple[str, int]]:
    """Where uvicorn listens with the routes of the engine."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(flamant.asgi(engine, name="signs"), log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield listener.getsockname()
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def post(address: tuple[str, int], body: bytes) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(*address, timeout=30)
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    return connection.getresponse()


def events(response: http.client.HTTPResponse) -> list[Any]:
    lines = response.read().decode().splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    return [json.loads(event) for event in data]


def test_streams_under_uvicorn(engine: flamant.Engine, address: tuple[str, int]) -> None:
    whole = json.loads(post(address, ask(max_tokens=60)).read())["choices"][0]["text"]
    texts: list[str] = []

    def stream() -> None:
        response = post(address, ask(max_tokens=60, stream=True))
        assert response.headers["content-type"].startswith("text/event-stream")
        texts.append("".join(choice["text"] for event in events(response) for choice in event["choices"]))

    threads = [threading.Thread(target=stream) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == [whole] * 32


def test_clients_that_hang_up_under_uvicorn(engine: flamant.Engine, address: tuple[str, int]) -> None:
    for stream in (True, False):
        before = idle(engine).requests_cancelled
        body = long(stream)
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(address) as connection:
            connection.sendall(head.encode() + body)
            begun = time.monotonic()
            while not running(engine):
                assert time.monotonic() - begun < 20
        assert comes_to(engine, before + 8)
