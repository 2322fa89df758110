"""Flamant on Ray: replicas of the HTTP server (Ray Serve), and lines of ``flamant batch`` (Ray Data).

``pip install './python[ray]'``. One engine is one device: a replica or an actor each has its own.
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Mapping
from os import PathLike
from typing import Any

import pyarrow
from ray import serve

import flamant

__all__ = ["Lines", "deployment"]

# Alpha in Ray 2.60: the only router that sends what has one key to one replica over plain HTTP.
_ROUTER = ("ray.serve.experimental.consistent_hash_router", "ConsistentHashRouter")
# The engine's own default of `max_sequences`.
_SEQUENCES = 64
# The server's own default of `request_timeout`, in seconds.
_REQUEST_TIMEOUT = 600.0


def deployment(
    model: str | PathLike[str] | None = None,
    *,
    engine: Mapping[str, Any] | None = None,
    server: Mapping[str, Any] | None = None,
    **options: Any,
) -> serve.Deployment:
    """Replicas of the OpenAI-compatible server for Ray Serve; ``serve.run(deployment(...).bind())`` starts them.

    ``model``, ``engine``: what :class:`flamant.Engine` takes; without a model, the one in the box. Paths must be there
    on every node. ``server``: what :func:`flamant.asgi` takes. ``options``: what ``serve.deployment`` takes
    (``num_replicas``, ``autoscaling_config``, ``ray_actor_options``, ...), before these defaults:

    - ``max_ongoing_requests``: a quarter more than the engine's ``max_sequences``, so that its batches are full.
    - ``max_queued_requests``: four times ``max_sequences`` for each proxy; what comes then is answered with 429 and
      ``Retry-After``, as is what Ray itself refuses.
    - requests with one ``x-session-id`` go to one replica, others anywhere: clients that send the ``prefix_key`` of
      ``/v1/render`` find their shots computed already.
    - ``graceful_shutdown_timeout_s``: above the longest answer.
    - ``autoscaling_config["target_ongoing_requests"]``: half of ``max_sequences``.
    """
    engine_settings, server_settings = dict(engine or {}), dict(server or {})
    sequences = int(engine_settings.get("max_sequences") or _SEQUENCES)
    cores = int((options.get("ray_actor_options") or {}).get("num_cpus") or 0)
    if cores:
        # Without it each replica would take all cores of its node.
        engine_settings.setdefault("threads", cores)

    class Flamant:
        """A replica: an engine, and the server's routes in front of it."""

        def __init__(self) -> None:
            self._engine = flamant.Engine(model, **engine_settings)

        def __serve_build_asgi_app__(self) -> Any:
            return flamant.asgi(self._engine, **server_settings)

        def check_health(self) -> None:
            """Raises where the engine has failed: Ray then starts another replica."""
            self._engine.stats()

    given = {
        "max_ongoing_requests": sequences + max(1, sequences // 4),
        "max_queued_requests": 4 * sequences,
        "backpressure_config": {"status_code": 429, "retry_after_s": 1.0},
        "graceful_shutdown_timeout_s": float(server_settings.get("request_timeout") or _REQUEST_TIMEOUT) + 10.0,
        **_by_session(),
        **options,
    }
    if isinstance(given.get("autoscaling_config"), Mapping):
        scaling = {"target_ongoing_requests": max(1, sequences // 2), **given["autoscaling_config"]}
        given["autoscaling_config"] = scaling
    return serve.deployment(**given)(serve.ingress()(Flamant))


def _by_session() -> dict[str, Any]:
    """The option that sends one session to one replica, where this Ray has such a router."""
    module, name = _ROUTER
    try:
        getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        told = f"this Ray has no {module}.{name} ({error}): replicas are chosen without regard to shared prefixes"
        warnings.warn(told, RuntimeWarning, stacklevel=3)
        return {}
    return {"request_router_config": {"request_router_class": f"{module}:{name}"}}


class Lines:
    """Answers lines of ``flamant batch``, for ``Dataset.map_batches`` over ``ray.data.read_text``.

    Made with what :class:`flamant.Engine` takes. Of a batch it reads the column ``text``, each a line as
    ``flamant batch`` reads it (images are data URIs, or paths that are there on every node), and returns ``answer``,
    the JSON line that ``flamant batch`` writes, and ``id``, the request's own: a string, null where it has none. A
    line that cannot be answered has an answer with ``error`` and ``kind``; only a failed device raises. Batches should
    be well above ``max_sequences``.
    """

    def __init__(self, model: str | PathLike[str] | None = None, **engine: Any) -> None:
        self._engine = flamant.Engine(model, **engine)

    def __call__(self, batch: Mapping[str, Any]) -> pyarrow.Table:
        answers = self._engine.lines([str(line) for line in batch["text"]])
        names = [json.loads(answer)["id"] for answer in answers]
        ids = [None if name is None else str(name) for name in names]
        # With types, since a block without a single id would be of another type than its neighbours.
        text = pyarrow.string()
        return pyarrow.table({"id": pyarrow.array(ids, text), "answer": pyarrow.array(answers, text)})
