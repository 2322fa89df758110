"""The stub and the types of all that is public."""

import inspect
import subprocess
import sys
from pathlib import Path

import flamant

FOLDER = Path(__file__).parent.parent


def checked(*arguments: str) -> None:
    # -P: the package that is installed, which need not be the one of the folder.
    command = [sys.executable, "-P", "-m", *arguments]
    ran = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_types_of_the_package_and_its_tests() -> None:
    checked("mypy", "--strict", "flamant", "tests")


def test_the_stub_is_what_the_module_is() -> None:
    checked("mypy.stubtest", "flamant._flamant", "--mypy-config-file", "pyproject.toml")


def test_everything_public_is_documented() -> None:
    for name in flamant.__all__:
        thing = getattr(flamant, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert thing.__doc__, name
    for name, method in vars(flamant.Engine).items():
        if not name.startswith("_"):
            assert method.__doc__, name
