"""Flamant from Python, with nothing but the standard library: the structs of flamant.h, and an Engine over them.

As a program it names signs it has never seen, then tells how likely each name is, with the model in the library:

    FLAMANT_LIBRARY=/usr/local/lib/libflamant.so python3 ctypes_demo.py
"""

import ctypes
import ctypes.util
import json
import os
import struct
import zlib
from ctypes import POINTER, Structure, byref
from ctypes import c_char_p, c_double, c_float, c_int32, c_size_t, c_uint32, c_uint64, c_void_p

ABI_VERSION = 1
OK, NO_EVENT, IDLE, STOPPED, FIRST_FAILURE = 0, 1, 2, 3, 10
PART_TEXT, PART_IMAGE, PART_PIXELS, PART_VIDEO = 1, 2, 3, 4
GENERATE, CLASSIFY, SCORE, FEATURES = 1, 2, 3, 4
TOKEN, LOGITS, WRITTEN, CLASSIFIED, SCORED, CANCELLED, FAILED, FEATURES_FOUND = range(1, 9)


class Text(Structure):
    _fields_ = [("data", c_void_p), ("length", c_size_t)]

    def __str__(self):
        return ctypes.string_at(self.data, self.length).decode() if self.data else ""


class Part(Structure):
    _fields_ = [
        ("kind", c_uint32), ("width", c_uint32), ("height", c_uint32), ("unused", c_uint32),
        ("data", c_void_p), ("length", c_size_t), ("stride", c_size_t),
    ]


class EngineOptions(Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("model", c_char_p), ("device", c_char_p), ("dtype", c_char_p), ("kv_dtype", c_char_p),
        ("threads", c_size_t), ("context_max", c_size_t), ("max_sequences", c_size_t), ("max_batched_tokens", c_size_t),
        ("max_batched_images", c_size_t), ("text_pages", c_size_t), ("media_pages", c_size_t), ("queue", c_size_t),
        ("queue_bytes", c_uint64), ("prefix_caching", c_uint32), ("load", c_uint32),
    ]


class Request(Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("parts", POINTER(Part)), ("part_count", c_size_t), ("task", c_uint32),
        ("logits", c_uint32), ("max_new_tokens", c_size_t), ("num_beams", c_size_t), ("length_penalty", c_float),
        ("temperature", c_float), ("top_k", c_size_t), ("top_p", c_float), ("min_p", c_float),
        ("repetition_penalty", c_float), ("ignore_eos", c_uint32), ("seed", c_uint64), ("stop", POINTER(Text)),
        ("stop_count", c_size_t), ("choices", POINTER(Text)), ("choice_count", c_size_t), ("max_pixels", c_uint64),
        ("no_repeat_ngram_size", c_size_t),
    ]


class Choice(Structure):
    _fields_ = [
        ("text", Text), ("ids", POINTER(c_uint32)), ("token_count", c_size_t), ("sum", c_double), ("mean", c_double),
    ]


class Event(Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("request", c_uint64), ("kind", c_uint32), ("is_last", c_uint32), ("text", Text),
        ("token", c_uint32), ("finish", c_uint32), ("logprob", c_double), ("position", c_size_t),
        ("logits", POINTER(c_float)), ("logit_count", c_size_t), ("ids", POINTER(c_uint32)),
        ("logprobs", POINTER(c_double)), ("token_count", c_size_t), ("choices", POINTER(Choice)),
        ("choice_count", c_size_t), ("failure", c_int32), ("unused", c_uint32), ("prompt_tokens", c_size_t),
        ("cached_tokens", c_size_t), ("completion_tokens", c_size_t), ("images", c_size_t),
        ("images_encoded", c_size_t), ("queue_seconds", c_double), ("media_seconds", c_double),
        ("prompt_seconds", c_double), ("decode_seconds", c_double), ("features", POINTER(c_float)),
        ("feature_count", c_size_t), ("feature_width", c_size_t),
    ]


class FlamantError(Exception):
    """A failure, with its status and the library's line about it."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Library:
    """The shared library, its functions declared."""

    def __init__(self, path=None):
        path = path or os.environ.get("FLAMANT_LIBRARY") or ctypes.util.find_library("flamant") or "libflamant.so"
        self.functions = ctypes.CDLL(path)
        self.declare("flamant_abi_version", c_uint32)
        self.declare("flamant_last_error", c_char_p)
        self.declare("flamant_engine_options_init", c_int32, POINTER(EngineOptions), c_size_t)
        self.declare("flamant_request_init", c_int32, POINTER(Request), c_size_t)
        self.declare("flamant_engine_open", c_int32, POINTER(EngineOptions), POINTER(c_void_p))
        self.declare("flamant_engine_free", c_int32, c_void_p)
        self.declare("flamant_engine_info_json", c_int32, c_void_p, POINTER(c_char_p))
        self.declare("flamant_engine_submit", c_int32, c_void_p, POINTER(Request), POINTER(c_uint64))
        self.declare("flamant_engine_cancel", c_int32, c_void_p, c_uint64)
        self.declare("flamant_engine_step", c_int32, c_void_p, POINTER(c_size_t))
        self.declare("flamant_engine_next_event", c_int32, c_void_p, POINTER(POINTER(Event)))
        self.declare("flamant_event_release", c_int32, POINTER(Event))
        found = self.functions.flamant_abi_version()
        if found != ABI_VERSION:
            raise ImportError(f"{path}: expected ABI version {ABI_VERSION}, found {found}")

    def declare(self, name, result, *arguments):
        function = getattr(self.functions, name)
        function.restype, function.argtypes = result, arguments

    def call(self, name, *arguments):
        """Calls a function; a failure is raised."""
        status = getattr(self.functions, name)(*arguments)
        if status >= FIRST_FAILURE:
            raise FlamantError(status, self.functions.flamant_last_error().decode())
        return status


class Engine:
    """An open model: one request at a time here, though the library runs many together.

    A prompt is a list of str (text), bytes (an encoded image), (width, height, bytes) (red, green and blue of
    pixels) and lists of the latter two (the frames of a video).
    """

    def __init__(self, model=None, library=None, **options):
        self.handle = c_void_p()
        self.library = library or Library()
        asked = EngineOptions()
        self.library.call("flamant_engine_options_init", byref(asked), ctypes.sizeof(asked))
        asked.model = None if model is None else os.fspath(model).encode()
        for name, value in options.items():
            setattr(asked, name, value.encode() if isinstance(value, str) else value)
        self.library.call("flamant_engine_open", byref(asked), byref(self.handle))

    def close(self):
        """Frees the engine; once is enough."""
        handle, self.handle = self.handle, c_void_p()
        self.library.call("flamant_engine_free", handle)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def generate(self, prompt, stop=(), **settings):
        """Yields the answer piece by piece as it is written. Giving up early cancels the request."""
        for event in self.events(prompt, GENERATE, stop=texts(stop), stop_count=len(stop), **settings):
            if event.kind == TOKEN and event.text.length:
                yield str(event.text)

    def classify(self, prompt, choices):
        """Log-likelihood of each choice after the prompt."""
        for event in self.events(prompt, CLASSIFY, choices=texts(choices), choice_count=len(choices)):
            if event.kind == CLASSIFIED:
                return {str(choice.text): choice.sum for choice in event.choices[: event.choice_count]}

    def score(self, prompt):
        """Log-probability of each token of the prompt, not a number for the first."""
        for event in self.events(prompt, SCORE):
            if event.kind == SCORED:
                return event.logprobs[: event.token_count]

    def features(self, images):
        """What images and videos are compared by: a unit vector for each."""
        for event in self.events(images, FEATURES):
            if event.kind == FEATURES_FOUND:
                width = event.feature_width
                return [event.features[row * width:(row + 1) * width] for row in range(event.feature_count)]

    def info(self):
        """What was opened: family, dimensions, device, limits."""
        text = c_char_p()
        self.library.call("flamant_engine_info_json", self.handle, byref(text))
        return json.loads(text.value)

    def events(self, prompt, task, **settings):
        """Submits a request and yields its events; what they point to is there until the next one."""
        # The array holds addresses; these hold what is there.
        given = [part(piece) for piece in prompt]
        parts = (Part * len(given))(*given)
        request, number = Request(), c_uint64()
        self.library.call("flamant_request_init", byref(request), ctypes.sizeof(request))
        request.parts, request.part_count, request.task = parts, len(parts), task
        for name, value in settings.items():
            setattr(request, name, value)
        self.library.call("flamant_engine_submit", self.handle, byref(request), byref(number))
        over = False
        try:
            while self.library.call("flamant_engine_step", self.handle, None) != IDLE:
                for event in self.due():
                    # Events of a request that was given up may still be due.
                    if event.request != number.value:
                        continue
                    over = bool(event.is_last)
                    if event.kind == FAILED:
                        raise FlamantError(event.failure, str(event.text))
                    yield event
        finally:
            # Given up, unless its last event was just not taken; then, or after close(), there is nothing to cancel.
            if not over:
                self.library.functions.flamant_engine_cancel(self.handle, number)

    def due(self):
        """Takes the events that are due, and gives each back after the next was asked for."""
        event = POINTER(Event)()
        while self.library.call("flamant_engine_next_event", self.handle, byref(event)) == OK:
            try:
                yield event.contents
            finally:
                self.library.call("flamant_event_release", event)


def texts(strings):
    """An array of texts; to be kept as long as it is used, and the bytes with it."""
    encoded = [string.encode() for string in strings]
    array = (Text * len(encoded))(*(Text(address(data), len(data)) for data in encoded))
    array.kept = encoded
    return array


def part(given):
    """A part of a prompt."""
    if isinstance(given, list):
        frames = [part(frame) for frame in given]
        array = (Part * len(frames))(*frames)
        made = Part(PART_VIDEO, 0, 0, 0, ctypes.cast(array, c_void_p), len(frames), 0)
        made.kept = array, frames
        return made
    if isinstance(given, str):
        kind, width, height, data = PART_TEXT, 0, 0, given.encode()
    elif isinstance(given, bytes):
        kind, width, height, data = PART_IMAGE, 0, 0, given
    else:
        (width, height, data), kind = given, PART_PIXELS
    made = Part(kind, width, height, 0, address(data), len(data), 0)
    made.kept = data
    return made


def address(data):
    return ctypes.cast(c_char_p(data), c_void_p)


def draw(sign, side=40, size=1.0):
    """White on black: "ring", "cross" or "Z", as red, green and blue of pixels."""
    thick = 0.13

    def on_line(x, y):
        if sign == "ring":
            return 0.49**2 < x * x + y * y < 0.75**2
        if sign == "cross":
            return abs(x) < thick and abs(y) < 0.8 or abs(y) < thick and abs(x) < 0.8
        return abs(x) < 0.7 and (0.49 < abs(y) < 0.75 or abs(x + y) < 1.4 * thick and abs(y) < 0.75)

    middles = [(2 * pixel + 1 - side) / side / size for pixel in range(side)]
    return b"".join(b"\xff\xff\xff" if on_line(x, y) else b"\0\0\0" for y in middles for x in middles)


def png(side, pixels):
    """The same as the bytes of a PNG file."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + pixels[row * side * 3 : (row + 1) * side * 3] for row in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def main():
    names = {"ring": "kep", "cross": "mul", "Z": "zon"}
    prompt = []
    for sign, name in names.items():
        # Images as files, or as pixels.
        prompt += [png(40, draw(sign)) if sign == "ring" else (40, 40, draw(sign)), f"{name}."]
    prompt.append((40, 40, draw("cross", size=0.9)))
    with Engine() as engine:
        print("A smaller cross is a ", end="")
        for text in engine.generate(prompt, stop=["."], max_new_tokens=4):
            print(text, end="", flush=True)
        print()
        for choice, logprob in engine.classify(prompt, [f"{name}." for name in names.values()]).items():
            print(f"{choice:8}{logprob:10.4f}")


if __name__ == "__main__":
    main()
