"""Few-shot visual language models of the Flamingo family.

>>> import flamant
>>> engine = flamant.Engine()                 # the model in the package; a folder for others
>>> engine.generate("kep.", max_new_tokens=9, ignore_eos=True).finish_reason
'length'
>>> engine.close()
"""

import atexit
import os

from . import _flamant
from ._asgi import asgi
from ._engine import Engine, Part, Prompt, prefix_key
from ._errors import Cancelled, DeviceError, FlamantError, LimitError, ModelError, PromptError, QueueFull, SettingError
from ._flamant import __version__
from ._request import Request
from ._types import (
    Choice,
    Classification,
    Completion,
    Image,
    Pages,
    Rendered,
    Sampling,
    Score,
    Stats,
    Timings,
    Token,
    Usage,
    Video,
)

# Threads of the engine must not ask for an interpreter that has ended, nor are they there after a fork.
atexit.register(_flamant.ending)
os.register_at_fork(after_in_child=_flamant.forked)

__all__ = [
    "Cancelled",
    "Choice",
    "Classification",
    "Completion",
    "DeviceError",
    "Engine",
    "FlamantError",
    "Image",
    "LimitError",
    "ModelError",
    "Pages",
    "Part",
    "Prompt",
    "PromptError",
    "QueueFull",
    "Rendered",
    "Request",
    "Sampling",
    "Score",
    "SettingError",
    "Stats",
    "Timings",
    "Token",
    "Usage",
    "Video",
    "__version__",
    "asgi",
    "prefix_key",
]
