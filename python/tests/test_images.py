"""Images of all kinds, which must come to the same."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy
import pytest
from conftest import sign
from PIL import Image

import flamant

Pixels = numpy.typing.NDArray[numpy.uint8]


def features(engine: flamant.Engine, *images: Any) -> "numpy.typing.NDArray[numpy.float32]":
    return numpy.asarray(engine.features(list(images)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK", "YCbCr"])
def test_modes_of_pillow(engine: flamant.Engine, tmp_path: Path, mode: str) -> None:
    """An image in memory is the same as its file, without loss, wherever its mode has one."""
    image = Image.fromarray(sign(3, 57)).resize((61, 43))
    if mode == "I;16":
        image = Image.fromarray(numpy.asarray(image.convert("L")).astype(numpy.uint16))
        assert image.mode == mode
    elif mode == "P":
        image = image.quantize(7)
        image.info["transparency"] = 0
    elif mode == "LA":
        image.putalpha(Image.fromarray(sign(4, 57)).resize((61, 43)).convert("L"))
        image = image.convert(mode)
    else:
        image = image.convert(mode)
    path = tmp_path / ("sign.png" if mode not in ("CMYK", "YCbCr") else "sign.png")
    (image.convert("RGB") if mode in ("CMYK", "YCbCr") else image).save(path)
    of_memory, of_file, of_bytes = features(engine, image, path, path.read_bytes())
    assert numpy.array_equal(of_memory, of_file) and numpy.array_equal(of_file, of_bytes)
    other = features(engine, sign(5))[0]
    assert not numpy.array_equal(of_memory, other)


def test_a_turned_photograph(engine: flamant.Engine, tmp_path: Path) -> None:
    """What metadata say of the orientation is obeyed once, in memory as in the file."""
    path, exif = tmp_path / "turned.jpg", Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(sign(6)[:, :30]).save(path, exif=exif, quality=95)
    with Image.open(path) as image:
        assert image.size == (30, 48)
        of_memory, of_file = features(engine, image, path)
        assert numpy.allclose(of_memory, of_file, atol=1e-3)
        plain = Image.fromarray(numpy.asarray(image))
    assert not numpy.allclose(of_file, features(engine, plain)[0], atol=1e-3)


def test_arrays(engine: flamant.Engine) -> None:
    pixels = sign(7, 40)
    large = numpy.zeros((80, 120, 3), dtype=numpy.uint8)
    large[::2, ::3] = pixels
    alpha = numpy.dstack([pixels, numpy.full((40, 40), 255, dtype=numpy.uint8)])
    grey = pixels[:, :, 0]
    buffer: Any = pixels
    rgb, strided, fortran, mirrored, memory, opaque = features(
        engine,
        pixels,
        large[::2, ::3],
        numpy.asfortranarray(pixels),
        pixels[:, ::-1][:, ::-1],
        memoryview(buffer),
        alpha,
    )
    for same in (strided, fortran, mirrored, memory):
        assert numpy.array_equal(rgb, same)
    assert numpy.allclose(rgb, opaque, atol=1e-3)
    assert numpy.array_equal(*features(engine, grey, Image.fromarray(grey)))
    assert numpy.array_equal(*features(engine, grey, numpy.stack([grey] * 3, axis=2)))


def test_the_pixels_are_copied(engine: flamant.Engine) -> None:
    """Whoever changes an array after it was submitted changes nothing."""
    pixels = sign(1)
    expected = engine.generate([pixels, "kep.", sign(2), "mul.", pixels], ignore_eos=True, max_new_tokens=8)
    request = engine.submit([pixels, "kep.", sign(2), "mul.", pixels], ignore_eos=True, max_new_tokens=8)
    pixels[:] = 0
    assert request.result().logprobs == expected.logprobs


def test_what_is_no_image(engine: flamant.Engine, tmp_path: Path) -> None:
    cut = io.BytesIO()
    Image.fromarray(sign(1)).save(cut, "png")
    wrong: list[tuple[Any, str]] = [
        (numpy.zeros((4, 4, 3)), "part 1: expected an image of uint8, found float64"),
        (numpy.zeros((4, 4), dtype=numpy.int8), "part 1: expected an image of uint8, found int8"),
        (numpy.zeros((4, 4, 2), dtype=numpy.uint8), "found \\[4, 4, 2\\]"),
        (numpy.zeros((0, 4, 3), dtype=numpy.uint8), "expected both sides above 0"),
        (b"kep.", "part 1: image: expected PNG, JPEG, WebP, GIF or BMP data"),
        (cut.getvalue()[:100], "part 1"),
        (tmp_path / "none.png", "none.png: No such file"),
        (3, "part 1: expected a str, an image, a Video or a dict, found int"),
        ({"image": 3}, "part 1: image: expected a string"),
        ({"picture": "a.png"}, 'found "picture"'),
        ({"image": "https://example.org/a.png"}, "nothing is fetched"),
        ({"image_url": {"url": "https://example.org/a.png"}}, "nothing is fetched"),
        (flamant.Video([]), "at least one frame"),
        (flamant.Video([sign(1)], frames=0), "frames of a video"),
        (flamant.Video([3]), "part 1: frame 0: expected an image, found int"),  # type: ignore[list-item]
        ("half \ud800", "half a surrogate pair"),
    ]
    for part, message in wrong:
        with pytest.raises(flamant.PromptError, match=message):
            engine.generate(["kep.", part])


def test_a_text_is_never_a_path(engine: flamant.Engine, png: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caption that happens to be the name of a file stays a caption."""
    monkeypatch.chdir(png.parent)
    png.rename(png.parent / "kep")
    assert engine.render("kep").text.endswith("kep")
    assert engine.render([Path("kep")]).sees[-1] == [0]


def test_parts_as_others_write_them(engine: flamant.Engine, png: Path) -> None:
    uri = "data:image/png;base64," + base64.b64encode(png.read_bytes()).decode()
    forms: list[Any] = [
        png,
        {"image": str(png)},
        {"image": png},
        {"image": uri, "text": None},
        {"type": "image", "image": png.read_bytes()},
        {"type": "image_url", "image_url": {"url": uri, "detail": "low"}},
        {"image_url": uri},
        {"video": [str(png)]},
        {"video": [sign(1)]},
        flamant.Video([png]),
    ]
    answers = engine.score([[form, "kep."] for form in forms])
    assert all(answer.logprobs == answers[0].logprobs for answer in answers)
    assert answers[0].usage.images == 1


def test_videos(engine: flamant.Engine, tmp_path: Path) -> None:
    frames = [sign(number) for number in range(20)]
    Image.fromarray(frames[0]).save(
        tmp_path / "signs.gif",
        save_all=True,
        append_images=[Image.fromarray(frame) for frame in frames[1:]],
        duration=1000,
    )
    paths = [tmp_path / f"{number}.png" for number in range(20)]
    for frame, path in zip(frames, paths, strict=True):
        Image.fromarray(frame).save(path)
    of_json: flamant.Part = {"video": [str(path) for path in paths], "frames": 5}
    expected = engine.score([of_json, "kep."]).logprobs
    assert engine.score([flamant.Video(frames, frames=5), "kep."]).logprobs == expected
    assert engine.score([flamant.Video(frames, frames=6), "kep."]).logprobs != expected
    for video in [
        flamant.Video(tmp_path / "signs.gif", frames=5),
        flamant.Video(str(tmp_path / "signs.gif"), frames=5),
    ]:
        assert engine.score([video, "kep."]).usage.images == 1
