"""Processes: forks, pickles, signals and ends."""

import multiprocessing
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import DEMO, shots

import flamant

HEAD = """
import asyncio, os, signal, sys, threading, time
import flamant
engine = flamant.Engine()
def long():
    return engine.submit("kep.", max_new_tokens=500, ignore_eos=True)
"""


def python(program: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Runs a program that has an engine."""
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", HEAD + program], capture_output=True, text=True, timeout=seconds
    )


def test_an_engine_does_not_come_along_to_a_fork() -> None:
    ran = python(
        """
requests = [long() for _ in range(20)]
for _ in range(10):
    child = os.fork()
    if child == 0:
        try:
            engine.generate("kep.")
            os._exit(3)
        except RuntimeError as error:
            assert "open one after fork" in str(error), error
        try:
            requests[0].result()
            os._exit(4)
        except RuntimeError as error:
            pass
        del requests, engine
        # Another one is as good as the first.
        with flamant.Engine() as own:
            own.generate("kep.", max_new_tokens=3)
            asyncio.run(own.submit("kep.", max_new_tokens=3)._answer())
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
print(len(requests[0].result().token_ids))
"""
    )
    assert ran.returncode == 0 and ran.stdout == "500\n", ran


def answer(engine: flamant.Engine) -> str:
    return engine.generate(shots(), max_new_tokens=4).text


def test_an_engine_is_pickled_by_its_settings(engine: flamant.Engine) -> None:
    with flamant.Engine(context_max=100, max_sequences=3) as first:
        copy = pickle.loads(pickle.dumps(first))
    assert copy.info == first.info and copy.info["limits"]["max_sequences"] == 3
    assert copy.generate(shots(), max_new_tokens=4).text == answer(engine)
    with multiprocessing.get_context("spawn").Pool(1) as processes:
        assert processes.apply(answer, (copy,)) == answer(engine)
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(copy.submit("kep."))


@pytest.mark.parametrize(
    "wait",
    [
        "long().result()",
        "list(long())",
        "engine.generate([['kep.']] * 500, max_new_tokens=500, ignore_eos=True)",
        'engine.lines([\'{\\"prompt\\": [{\\"text\\": \\"kep.\\"}], \\"max_new_tokens\\": 500}\'] * 500)',
        "asyncio.run(long()._answer())",
    ],
)
def test_control_c_comes_through_at_once(wait: str) -> None:
    ran = python(
        f"""
def interrupt():
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGINT)
    global sent
    sent = time.monotonic()
threading.Thread(target=interrupt).start()
requests = [long() for _ in range(60)]
try:
    while True:
        {wait}
except KeyboardInterrupt:
    print(time.monotonic() - sent < 1)
"""
    )
    assert ran.returncode == 0 and ran.stdout == "True\n", ran


@pytest.mark.parametrize(
    "end",
    [
        "",
        "sys.exit(0)",
        "[next(iter(request)) for request in requests[:5]]",
        "threading.Thread(target=requests[0].result, daemon=True).start()",
        "asyncio.run(asyncio.wait({asyncio.ensure_future(stream())}, timeout=0.1))",
        "engine.close()",
        "keep = flamant.asgi(engine)",
    ],
)
def test_a_process_ends_while_requests_run(end: str) -> None:
    program = f"""
async def stream():
    await asyncio.gather(*[request._answer() for request in requests])
async def some():
    await asyncio.wait([asyncio.ensure_future(stream())], timeout=0.1)
requests = [long() for _ in range(40)]
{end.replace("asyncio.wait({asyncio.ensure_future(stream())}, timeout=0.1)", "some()")}
"""
    for _ in range(3):
        begun = time.monotonic()
        ran = python(program)
        assert ran.returncode == 0 and not ran.stderr and time.monotonic() - begun < 20, ran


def test_the_command_line_is_in_the_package(program: Callable[..., str], png: Path) -> None:
    arguments = ["score", str(DEMO), "-i", str(png), "-t", "kep.", "--json"]
    own = subprocess.run([sys.executable, "-m", "flamant", *arguments], capture_output=True, text=True, timeout=60)
    assert own.returncode == 0 and '"logprobs"' in own.stdout
    script = Path(sys.executable).parent / "flamant"
    assert subprocess.run([script, "--version"], capture_output=True, text=True).stdout == program("--version")
    usage = subprocess.run([script, "generate", "--what"], capture_output=True, text=True)
    assert usage.returncode == 2 and "--what" in usage.stderr and not usage.stdout
    missing = subprocess.run([script, "generate", "/none", "-t", "kep"], capture_output=True, text=True)
    assert missing.returncode == 1 and missing.stderr.count("\n") == 1


def test_control_c_ends_the_command_line() -> None:
    arguments = [sys.executable, "-m", "flamant", "serve", "--demo", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("listening on http://127.0.0.1:")
        server.send_signal(signal.SIGINT)
        assert server.wait(20) in (0, -signal.SIGINT)


def test_a_package_without_others() -> None:
    """Nothing is imported that is not in Python itself."""
    others = ("numpy", "PIL", "ray", "huggingface_hub")
    program = f"import sys, flamant; print([name for name in {others} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ran.stdout == "[]\n", ran


def test_names_of_the_hub_are_fetched_only_when_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``download`` asks huggingface_hub, and opens the folder that it names."""
    (tmp_path / "huggingface_hub.py").write_text(
        "def snapshot_download(name, revision, allow_patterns):\n"
        "    raise LookupError(f'{name} {revision} {allow_patterns[0]}')\n"
    )
    with pytest.raises(flamant.ModelError):
        flamant.Engine("owner/name")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match="flamant\\[hub\\]"):
        flamant.Engine("owner/name", download=True)
    monkeypatch.delitem(sys.modules, "huggingface_hub")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(LookupError, match="owner/name main \\*.safetensors"):
        flamant.Engine("owner/name@main", download=True)
