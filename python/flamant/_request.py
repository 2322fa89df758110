"""A request on its way."""

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any, Generic, TypeVar, cast

from . import _flamant
from ._errors import Cancelled
from ._types import Token

T = TypeVar("T")


def wake(futures: list["asyncio.Future[None]"]) -> None:
    """Called in the loop of these futures, when what they wait for is there."""
    for future in futures:
        if not future.done():
            future.set_result(None)


class Request(Generic[T]):
    """A request on its way: a loop over it has its tokens, :meth:`result` its answer, in threads or tasks.

    ``for`` and ``async for`` take tokens as they are written, ``await`` and :meth:`result` wait for the whole. A task
    that is cancelled while it waits cancels the request, and so does dropping the last reference to it.

    >>> import flamant
    >>> with flamant.Engine() as engine:
    ...     request = engine.submit("kep.", max_new_tokens=3, ignore_eos=True)
    ...     text = "".join(token.text for token in request)
    ...     text == request.result().text
    True
    """

    __slots__ = ("__weakref__", "_events", "id")

    id: int | str
    """What the caller called it, else a number."""

    def __init__(self, events: _flamant.Events, id: int | str | None = None) -> None:
        self._events = events
        self.id = events.id if id is None else id

    def __repr__(self) -> str:
        return f"<flamant.Request {self.id!r}{' done' if self.done else ''}>"

    @property
    def done(self) -> bool:
        """Whether it has ended: whether :meth:`result` returns at once."""
        return self._events.done

    def cancel(self) -> None:
        """Asks for it to be cancelled; unless it ends before that, its result is :class:`flamant.Cancelled`."""
        self._events.cancel()

    def result(self, timeout: float | None = None) -> T:
        """Waits for the answer, for so many seconds at most.

        Raises :class:`TimeoutError`, and then the request goes on; :class:`flamant.Cancelled`; or what it failed with.
        """
        return cast(T, self._events.end(timeout))

    def __iter__(self) -> Iterator[Token]:
        return self

    def __next__(self) -> Token:
        token = self._events.token(None)
        if token is None:
            self._ended()
            raise StopIteration
        return token

    def __aiter__(self) -> AsyncIterator[Token]:
        return self

    async def __anext__(self) -> Token:
        while True:
            await self._ready(for_end=False)
            try:
                token = self._events.token(0)
                break
            except TimeoutError:
                # Another task was faster.
                continue
        if token is None:
            self._ended()
            raise StopAsyncIteration
        return token

    def __await__(self) -> Generator[Any, None, T]:
        return self._answer().__await__()

    async def _answer(self) -> T:
        await self._ready(for_end=True)
        return self.result(0)

    async def _ready(self, for_end: bool) -> None:
        """Waits until there is a token or the end."""
        loop = asyncio.get_running_loop()
        while True:
            future: asyncio.Future[None] = loop.create_future()
            if self._events.poll(loop, future, for_end):
                return
            try:
                await future
            except asyncio.CancelledError:
                self.cancel()
                raise

    def _ended(self) -> None:
        """Raises what the request failed with; one that was cancelled has no more tokens, which is no error."""
        try:
            self._events.end(0)
        except Cancelled:
            pass
