"""Servers of the program, for tests that speak HTTP to it. They need no package `flamant`."""

import contextlib
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def binary() -> str:
    """The program: ``FLAMANT_PROGRAM``, else that of a debug build, else the one on the path."""
    built = ROOT / "target/debug/flamant"
    path = os.environ.get("FLAMANT_PROGRAM") or (str(built) if built.is_file() else shutil.which("flamant"))
    assert path, f"expected a program in FLAMANT_PROGRAM, {built} or flamant on the path"
    return path


@contextlib.contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[str]:
    """`flamant serve` on a free port; its address."""
    command = [binary(), "serve", "--listen", "127.0.0.1:0", "--log", "off", *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FLAMANT_")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**clean, **environment})
    late = threading.Timer(120, process.kill)
    late.start()
    try:
        assert process.stdout
        told = process.stdout.readline()
        address = re.search(r"http://\S+", told)
        assert address, f"{' '.join(command)}: expected an address, found {told!r}"
        late.cancel()
        yield address[0].rstrip("/")
    finally:
        late.cancel()
        process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a server of the model in the program."""
    with serving("--demo") as address:
        yield address
