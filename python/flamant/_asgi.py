"""The server's routes for servers of Python."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

from . import _flamant
from ._engine import Engine

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


def asgi(
    engine: Engine,
    *,
    name: str | None = None,
    api_keys: Sequence[str] = (),
    hosts: Sequence[str] | None = None,
    cors_origins: Sequence[str] = (),
    queue: int = 256,
    max_body: int = 64 << 20,
    max_inflight_bytes: int = 1 << 30,
    max_images: int = 64,
    max_pixels: int = 64 << 20,
    body_timeout: float = 30.0,
    request_timeout: float = 600.0,
    allow_ffmpeg: bool = False,
    salt_by_key: bool = False,
    lenient: bool = False,
    page: bool = True,
    log: Literal["off", "text", "json"] = "off",
) -> Application:
    """The routes of ``flamant serve`` as an ASGI application, for uvicorn, Ray Serve and others.

    Settings are those of ``flamant serve``, but for what belongs to its sockets. ``name`` is what requests call the
    model; ``api_keys`` let requests in (without any, everybody may come in: the server in front may have its own);
    ``hosts`` is what requests may call this server, ``None`` anything; ``cors_origins`` are pages that may send
    requests. ``queue`` requests wait beside those that run, more are answered by 429. ``max_body`` and
    ``max_inflight_bytes`` are bytes of a request and of all that are read, ``max_images`` and ``max_pixels`` bound the
    images of a request, timeouts are in seconds. ``allow_ffmpeg`` reads video files, ``salt_by_key`` has prompts share
    computed prefixes with those of the same key alone, ``lenient`` passes over unknown fields, ``page`` has the page
    for browsers at ``/``, ``log`` is a line for each request on standard error.

    >>> import flamant
    >>> application = flamant.asgi(flamant.Engine())    # uvicorn module:application
    """
    settings = {
        "name": name,
        "api_keys": list(api_keys),
        "hosts": None if hosts is None else list(hosts),
        "cors_origins": list(cors_origins),
        "queue": queue,
        "max_body": max_body,
        "max_inflight_bytes": max_inflight_bytes,
        "max_images": max_images,
        "max_pixels": max_pixels,
        "body_timeout": body_timeout,
        "request_timeout": request_timeout,
        "allow_ffmpeg": allow_ffmpeg,
        "salt_by_key": salt_by_key,
        "lenient": lenient,
        "page": page,
        "log": log,
    }
    app = _flamant.App(engine._engine, settings)

    async def application(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                # Where it is mounted, as by Ray's `route_prefix`: the routes are below that.
                root = scope.get("root_path", "").encode()
                target = (scope.get("raw_path") or quote(scope["path"]).encode()).removeprefix(root) or b"/"
                if query := scope.get("query_string"):
                    target = target.partition(b"?")[0] + b"?" + query
                headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
                try:
                    call = app.call(scope["method"], target.decode("latin-1"), headers)
                except ValueError as error:
                    await refuse(str(error), send)
                else:
                    await answer(call, receive, send)
            case "lifespan":
                await live(receive, send)
            case other:
                raise NotImplementedError(f"flamant.asgi: expected http, found {other}")

    return application


async def live(receive: Receive, send: Send) -> None:
    """Says that nothing has to be started or stopped."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return


async def refuse(message: str, send: Send) -> None:
    """Answers what the routes cannot even read the head of."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": "invalid_value"}
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": error}).encode(), "more_body": False})


async def answer(call: _flamant.Call, receive: Receive, send: Send) -> None:
    """Answers a request, until the client has gone."""
    loop = asyncio.get_running_loop()
    receiving: asyncio.Future[Message] | None = None
    try:
        while True:
            future: asyncio.Future[None] = loop.create_future()
            message = call.poll(loop, future)
            if message is True:
                receiving = asyncio.ensure_future(receive())
            elif message is not None:
                await send(message)
                if message["type"] == "http.response.body" and not message["more_body"]:
                    return
            elif receiving is None:
                await future
            else:
                either: set[asyncio.Future[Any]] = {future, receiving}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if not receiving.done():
                    continue
                received, receiving = receiving.result(), None
                if received["type"] == "http.disconnect":
                    return
                if not call.feed(received.get("body", b""), received.get("more_body", False)):
                    # The body is whole. What else comes tells that the client has gone: not all servers cancel.
                    receiving = asyncio.ensure_future(receive())
    finally:
        # Whoever keeps the exception of a cancelled task keeps the call.
        call.close()
        if receiving is not None:
            receiving.cancel()
