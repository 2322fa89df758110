"""Requests of many threads and tasks: the same answers, and nothing left behind."""

import asyncio
import gc
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import shots, sign

import flamant


def idle(engine: flamant.Engine) -> flamant.Stats:
    """The engine's counts once nothing runs any more."""
    for _ in range(500):
        stats = engine.stats()
        if stats.requests_running == stats.requests_waiting == stats.text_pages.held == 0:
            return stats
        time.sleep(0.01)
    raise AssertionError(f"still busy: {stats}")


def comes_to(engine: flamant.Engine, cancelled: int) -> bool:
    """Whether so many requests are cancelled in the end: nobody waits until the engine has heard of it."""
    end = time.monotonic() + 30
    while (found := idle(engine).requests_cancelled) < cancelled and time.monotonic() < end:
        time.sleep(0.01)
    return found == cancelled


def text(answer: flamant.Completion) -> tuple[str, list[float]]:
    return answer.text, answer.logprobs


def long(engine: flamant.Engine) -> "flamant.Request[flamant.Completion]":
    """A request that takes some seconds."""
    return engine.submit(shots(), max_new_tokens=460, ignore_eos=True)


def test_threads(engine: flamant.Engine) -> None:
    prompts = [shots(sign(number)) for number in range(24)]
    alone = [text(engine.generate(prompt, max_new_tokens=20, ignore_eos=True)) for prompt in prompts]

    def ask(prompt: list[flamant.Part]) -> tuple[str, list[float]]:
        request = engine.submit(prompt, max_new_tokens=20, ignore_eos=True)
        streamed = list(request)
        answer = request.result()
        assert "".join(token.text for token in streamed) == answer.text
        assert [token.id for token in streamed] == answer.token_ids
        assert [token.logprob for token in streamed] == answer.logprobs
        return text(answer)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, prompts)) == alone
    assert [text(answer) for answer in engine.generate(prompts, max_new_tokens=20, ignore_eos=True)] == alone


async def test_tasks(engine: flamant.Engine) -> None:
    prompts = [shots(sign(number)) for number in range(24)]
    alone = [text(await engine.submit(prompt, max_new_tokens=20, ignore_eos=True)) for prompt in prompts]

    async def ask(prompt: list[flamant.Part]) -> tuple[str, list[float]]:
        request = engine.submit(prompt, max_new_tokens=20, ignore_eos=True)
        streamed = [token async for token in request]
        answer = await request
        assert "".join(token.text for token in streamed) == answer.text
        assert [token.id for token in streamed] == answer.token_ids
        # A request that has ended can be asked again.
        assert request.done and (await request) == request.result()
        return text(answer)

    assert await asyncio.gather(*map(ask, prompts)) == alone
    answers = await asyncio.gather(
        *(engine.submit(prompt, task="classify", choices=["kep", "mul"]) for prompt in prompts)
    )
    assert {answer.choice for answer in answers} == {"kep", "mul"}


async def test_two_tasks_wait_for_one_request(engine: flamant.Engine) -> None:
    request = engine.submit(shots(), max_new_tokens=60, ignore_eos=True)

    async def tokens() -> list[int]:
        return [token.id async for token in request]

    async def answer() -> flamant.Completion:
        return await request

    one, two, first, second = await asyncio.gather(tokens(), tokens(), answer(), answer())
    assert sorted(one + two) == sorted(first.token_ids) and first == second


async def test_a_loop_is_never_held_up(engine: flamant.Engine) -> None:
    """Other tasks run while an answer is waited for."""
    request, ticks = long(engine), 0
    while not request.done:
        await asyncio.sleep(0.001)
        ticks += 1
    assert ticks > 20 and len((await request).token_ids) == 460


async def test_a_cancelled_task_cancels_its_request(engine: flamant.Engine) -> None:
    before = idle(engine).requests_cancelled
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(long(engine), 0.05)
    request = long(engine)

    async def stream() -> None:
        async for _ in request:
            pass

    task = asyncio.create_task(stream())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(flamant.Cancelled):
        await request
    assert comes_to(engine, before + 2)


def test_cancelling(engine: flamant.Engine) -> None:
    before = idle(engine).requests_cancelled
    request, count = long(engine), 0
    for _ in request:
        count += 1
        if count == 5:
            request.cancel()
    assert 5 <= count < 460 and request.done
    for _ in range(2):
        with pytest.raises(flamant.Cancelled):
            request.result()
    request.cancel()
    assert list(request) == []
    # Nobody has any more use for what nobody refers to.
    dropped = long(engine)
    next(iter(dropped))
    del dropped
    gc.collect()
    assert comes_to(engine, before + 2)


def test_time_limits(engine: flamant.Engine) -> None:
    request = long(engine)
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        request.result(0.02)
    assert time.monotonic() - begun < 1 and not request.done
    request.cancel()
    with pytest.raises(flamant.Cancelled):
        request.result(10)


def test_the_interpreter_is_free_while_a_thread_waits(engine: flamant.Engine) -> None:
    request = long(engine)
    waiting = threading.Thread(target=request.result)
    waiting.start()
    count = 0
    while waiting.is_alive():
        count += 1
        time.sleep(0)
    # A thread that kept the interpreter would leave it to this one hardly ever.
    assert count > 20


def test_memory_stays(engine: flamant.Engine) -> None:
    """A thousand requests with images, some of which are given up, leave nothing."""

    async def many(count: int) -> None:
        for _ in range(count // 50):
            requests = [engine.submit(shots(sign(number, 128)), max_new_tokens=4) for number in range(50)]
            for request in requests[:5]:
                request.cancel()
            await asyncio.gather(*requests, return_exceptions=True)

    def used() -> int:
        gc.collect()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    asyncio.run(many(300))
    before = used()
    asyncio.run(many(1000))
    assert used() - before < 32 << 20
    idle(engine)
