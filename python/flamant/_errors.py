"""What can go wrong; the text of each is one line that names what was expected and what was found."""


class FlamantError(Exception):
    """An error of the engine. ``param`` names the parameter at fault, where there is one."""

    param: str | None

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param

    def __reduce__(self) -> tuple[type["FlamantError"], tuple[str, str | None]]:
        return type(self), (str(self), self.param)


class ModelError(FlamantError):
    """A model folder that cannot be opened, or weights whose numbers are not finite."""


class PromptError(FlamantError, ValueError):
    """A prompt that cannot be read: a part of another type, an image that is none, a text that holds a marker."""


class SettingError(FlamantError, ValueError):
    """A setting out of its range; ``param`` is its name."""


class LimitError(FlamantError):
    """More than a stated limit allows: parts, pixels, bytes, tokens of the context."""


class QueueFull(LimitError):
    """The engine has too much to do now; the same request may be taken later."""


class DeviceError(FlamantError):
    """A device that is not there, is full, or has failed."""


class Cancelled(FlamantError):
    """The request was cancelled."""
