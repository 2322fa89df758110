"""What the tests of the package share: the model in the package, signs to show it, and the program to compare with."""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy
import pytest

import flamant
from serving import server  # noqa: F401

# Tests of what else must be installed, in environments that tools/test_python.sh makes.
WANTED = {"test_openai.py": "openai", "test_page.py": "playwright", "test_ray.py": "ray"}
collect_ignore = [name for name, package in WANTED.items() if find_spec(package) is None]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what was not run."""
    for name in collect_ignore:
        terminalreporter.write_line(f"not run: {name} wants {WANTED[name]} (tools/test_python.sh)")

DEMO = Path(__file__).parent.parent.parent / "models" / "demo"
"""The folder of the model in the package."""


@pytest.fixture(scope="session")
def engine() -> Iterator[flamant.Engine]:
    """The model in the package, opened once."""
    with flamant.Engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def program() -> Callable[..., str]:
    """Runs the command line, and gives its standard output: ``FLAMANT_PROGRAM``, else the script of the package."""
    path = os.environ.get("FLAMANT_PROGRAM") or str(Path(sys.executable).parent / "flamant")

    def run(*arguments: str) -> str:
        return subprocess.run([path, *arguments], check=True, capture_output=True, text=True, timeout=120).stdout

    return run


def sign(number: int, side: int = 48) -> "numpy.typing.NDArray[numpy.uint8]":
    """A sign: a few dark lines on white, always the same for a number; uint8 of the shape (side, side, 3)."""
    numbers = random.Random(number)
    image = numpy.full((side, side, 3), 255, dtype=numpy.uint8)
    for _ in range(4):
        row, column = numbers.randrange(4, side - 8), numbers.randrange(4, side - 8)
        if numbers.random() < 0.5:
            image[row : row + 4, column:] = numbers.randrange(90)
        else:
            image[row:, column : column + 4] = numbers.randrange(90)
    return image


def shots(asked: flamant.Part | None = None) -> list[flamant.Part]:
    """Two signs with made-up names, and a third to be named."""
    return [sign(1), "kep.", sign(2), "mul.", sign(1) if asked is None else asked]


@pytest.fixture
def png(tmp_path: Path) -> Path:
    """A sign in a file."""
    from PIL import Image

    path = tmp_path / "sign.png"
    Image.fromarray(sign(1)).save(path)
    return path
