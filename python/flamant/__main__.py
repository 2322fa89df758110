"""The whole command line: ``flamant`` and ``python -m flamant``."""

import os
import signal
import sys

from . import _flamant


def main() -> None:
    """Runs the command line with the arguments of this process, and ends with its exit code."""
    # Nobody looks for Python's signals meanwhile: Ctrl-C ends the program as it ends others.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    code = _flamant.main(["flamant", *sys.argv[1:]])
    sys.stdout.flush()
    # Threads of the command line have nothing to say to an interpreter.
    os._exit(code)


if __name__ == "__main__":
    main()
