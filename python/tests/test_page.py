"""The page at `/` in a real browser, against `flamant serve --demo`.

Needs pytest and playwright from PyPI, and Debian's chromium (`apt-get install --no-install-recommends chromium`), which
playwright drives in place of one of its own; `FLAMANT_CHROMIUM` names another. The package `flamant` is not needed:

    PYTHONPATH=python/tests python -m pytest --noconftest -p serving python/tests/test_page.py

`FLAMANT_SCREENSHOTS` is a folder for pictures of the page in each task.
"""

import base64
import json
import math
import os
import pathlib
import re
import struct
import subprocess
import zlib
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from playwright.sync_api import Browser, FloatRect, Locator, Page, ViewportSize, expect, sync_playwright
from serving import ROOT, binary, serving

TASKS = ["write", "classify", "score", "read"]
# The browser says so itself of each answer that is an error.
REFUSED = "Failed to load resource"


def png(width: int, height: int, shade: int = 255) -> bytes:
    """A PNG file with a bright diagonal."""
    rows = b"".join(b"\0" + bytes(shade if x == y else 0 for x in range(width)) for y in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("FLAMANT_CHROMIUM", "/usr/bin/chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


class Watched:
    """A tab that remembers its complaints and whom it spoke to."""

    def __init__(self, browser: Browser, address: str, width: int = 1280, height: int = 900, **more: Any) -> None:
        self.context = browser.new_context(
            viewport=ViewportSize(width=width, height=height),
            reduced_motion="reduce",
            permissions=["clipboard-read", "clipboard-write"],
            **more,
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.address = address
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def done(self, allowed: Iterable[str] = ()) -> None:
        self.context.close()
        complaints = [text for text in self.complaints if not any(part in text for part in allowed)]
        assert complaints == []
        foreign = [url for url in self.asked if not url.startswith((self.address + "/", "data:", "blob:"))]
        assert foreign == []


@pytest.fixture
def page(browser: Browser, server: str) -> Iterator[Page]:
    watched = Watched(browser, server)
    watched.page.goto(server)
    expect(watched.page.locator(".symbol")).to_have_count(5)
    yield watched.page
    watched.done(allowed=[REFUSED])


def names(page: Page) -> list[str]:
    return page.locator(".symbol b").all_inner_texts()


def run(page: Page, task: str) -> Locator:
    """Presses a task's button and waits for its end."""
    page.locator(f"#task-{task}").click()
    expect(page.locator("#result")).not_to_have_attribute("aria-busy", "true")
    return page.locator("#result")


def texts(page: Page) -> list[str]:
    """The blocks in order: texts as they are, images as `#`."""
    blocks = page.locator("#flow > li").all()
    return [block.locator("textarea").input_value() if block.locator("textarea").count() else "#" for block in blocks]


def empty(page: Page, *parts: str) -> None:
    """A prompt of texts alone, in place of what is there."""
    page.click("#empty")
    for text in parts:
        page.click("#add-text")
        page.keyboard.insert_text(text)
    assert texts(page) == list(parts)


def arc(cx: float, cy: float, rx: float, ry: float, begin: float, end: float) -> list[tuple[float, float]]:
    """Points of an arc, degrees, clockwise from the right."""
    steps = max(6, round(abs(end - begin) / 15))
    angles = [math.radians(begin + (end - begin) * step / steps) for step in range(steps + 1)]
    return [(cx + rx * math.cos(angle), cy + ry * math.sin(angle)) for angle in angles]


# The five symbols as somebody drew them who was in no hurry to be exact, in hundredths of the square.
HAND: list[list[list[tuple[float, float]]]] = [
    [[*arc(50, 50, 9, 8, 80, 270), *arc(52, 58, 17, 17, 270, 455), *arc(48, 44, 28, 32, 80, 265)]],
    [[(12, 30), (22, 55), (35, 82), (48, 54), (58, 22), (68, 48), (88, 84)]],
    [[(38, 16), (37, 40), (36, 60), *arc(55, 62, 19, 20, 180, 10)], [(74, 20), (75, 21)]],
    [[(52, 36), (36, 60), (16, 88), (50, 90), (80, 86), (66, 60), (51, 35)], [(24, 14), (50, 11), (78, 13)]],
    [[(20, 20), *arc(50, 22, 30, 34, 180, 0), (81, 18)], [(51, 12), (50, 50), (48, 92)]],
]


def box(locator: Locator) -> FloatRect:
    """Where something stands."""
    found = locator.bounding_box()
    assert found
    return found


def draw(page: Page, strokes: list[list[tuple[float, float]]]) -> None:
    """Draws by the mouse on the pad."""
    page.click("#clear")
    area = box(page.locator("#canvas"))
    for stroke in strokes:
        for step, (x, y) in enumerate(stroke):
            page.mouse.move(area["x"] + area["width"] * x / 100, area["y"] + area["height"] * y / 100)
            if step == 0:
                page.mouse.down()
        page.mouse.up()


def odds(page: Page, index: int) -> float:
    """The odds of a symbol in per cent, once it is the likeliest."""
    expect(page.locator(".symbol").nth(index)).to_have_class(re.compile("best"))
    return float(page.locator(".odds").nth(index).inner_text().strip("<> %"))


@pytest.mark.parametrize("index", range(5))
def test_a_symbol_drawn_by_hand_is_named(page: Page, index: int) -> None:
    draw(page, HAND[index])
    assert odds(page, index) > 50
    expect(page.locator("#verdict b")).to_have_text(names(page)[index])
    # What was drawn is the last image of the prompt, for the tasks.
    expect(run(page, "classify").locator("tr.best td").first).to_have_text(names(page)[index] + ".")


def test_a_symbol_is_drawn_on_request_and_has_the_name_that_is_dealt(page: Page) -> None:
    for index in range(5):
        page.locator(".symbol").nth(index).click()
        assert odds(page, index) > 50
    before = names(page)
    page.click("#rename")
    assert names(page) != before and len(set(names(page))) == 5
    assert odds(page, 4) > 50
    expect(page.locator("#verdict b")).to_have_text(names(page)[4])
    assert texts(page)[1::2] == [name + "." for name in names(page)]


def test_the_keyboard_draws(page: Page) -> None:
    page.locator("#canvas").focus()

    def go(**steps: int) -> None:
        for key, count in steps.items():
            for _ in range(count):
                page.keyboard.press(f"Arrow{key}")

    # A trident of straight lines: the middle, then the three other sides of the cup.
    go(Up=8)
    page.keyboard.press("Space")
    go(Down=16)
    page.keyboard.press("Space")
    go(Up=15, Left=6)
    page.keyboard.press("Space")
    go(Down=7, Right=12, Up=7)
    page.keyboard.press("Space")
    assert odds(page, 4) > 50
    for button in ["#undo", "#clear"]:
        page.locator(button).focus()
        page.keyboard.press("Enter")
    expect(page.locator(".symbol.best")).to_have_count(0)
    page.click("#ask")
    expect(page.locator("#verdict")).to_have_text("Draw one of the five symbols first.")


def test_images_come_by_drop_paste_and_pick(page: Page, tmp_path: pathlib.Path) -> None:
    empty(page, "before", "after")
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    small.write_bytes(png(40, 40))
    large.write_bytes(png(64, 48))

    # Dropped on the first block, it stands after it.
    area = box(page.locator("#flow > li").first)
    session = page.context.new_cdp_session(page)
    for kind in ["dragEnter", "dragOver", "drop"]:
        data = {"items": [], "files": [str(small)], "dragOperationsMask": 1}
        session.send("Input.dispatchDragEvent", {"type": kind, "x": area["x"] + 9, "y": area["y"] + 9, "data": data})
    expect(page.locator(".picture img")).to_have_count(1)
    assert texts(page) == ["before", "#", "after"]

    # Pasted, it stands after the block that has the focus.
    page.evaluate(
        """async bytes => {
          const blob = new Blob([Uint8Array.from(atob(bytes), byte => byte.charCodeAt())], { type: "image/png" });
          await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        }""",
        base64.b64encode(png(20, 20)).decode(),
    )
    page.locator("#flow textarea").nth(1).focus()
    page.keyboard.press("Control+V")
    expect(page.locator(".picture img")).to_have_count(2)
    assert texts(page) == ["before", "#", "after", "#"]

    # Picked, several at once; an image that is pressed is picked anew.
    with page.expect_file_chooser() as chooser:
        page.click("#add-image")
    chooser.value.set_files([small, large])
    expect(page.locator(".picture img")).to_have_count(4)
    before = page.locator(".picture img").first.get_attribute("src")
    with page.expect_file_chooser() as chooser:
        page.locator(".picture").first.click()
    chooser.value.set_files(large)
    expect(page.locator(".picture img").first).not_to_have_attribute("src", before)
    assert texts(page) == ["before", "#", "after", "#", "#", "#"]

    # What is no image is refused, and a text that is pasted beside the blocks is a new one.
    wrong = tmp_path / "notes.svg"
    wrong.write_text("<svg/>")
    with page.expect_file_chooser() as chooser:
        page.click("#add-image")
    chooser.value.set_files(wrong)
    expect(page.locator("#toast")).to_contain_text("notes.svg: expected PNG, JPEG, WebP, GIF or BMP")
    page.evaluate("navigator.clipboard.writeText('pasted')")
    page.locator("#add-text").focus()
    page.keyboard.press("Control+V")
    expect(page.locator("textarea:focus")).to_have_value("pasted")


def test_blocks_are_moved_by_keys_buttons_and_pointers(page: Page) -> None:
    empty(page, "a", "b", "c")
    area = page.get_by_role("textbox", name="Text, block 3 of 3")
    area.focus()
    page.keyboard.press("Alt+ArrowUp")
    assert texts(page) == ["a", "c", "b"]
    expect(page.locator("#said")).to_have_text("Moved to place 2 of 3.")
    page.keyboard.press("Alt+ArrowUp")
    page.keyboard.press("Alt+ArrowUp")
    assert texts(page) == ["c", "a", "b"]
    page.keyboard.press("Alt+ArrowDown")
    assert texts(page) == ["a", "c", "b"]

    # The tools are reached by the Tab key from their block, and keep the focus.
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_attribute("aria-label", "Move later")
    page.keyboard.press("Enter")
    assert texts(page) == ["a", "b", "c"]
    expect(page.locator(":focus")).to_have_attribute("aria-label", "Move later")

    first, last = page.locator("#flow > li").first, page.locator("#flow > li").last
    first.hover()
    grip, over = box(first.locator(".grip")), box(last)
    page.mouse.move(grip["x"] + 9, grip["y"] + 9)
    page.mouse.down()
    page.mouse.move(over["x"] + over["width"] - 4, over["y"] + 20, steps=8)
    page.mouse.up()
    assert texts(page) == ["b", "c", "a"]

    page.locator("#flow > li").nth(1).hover()
    page.locator("#flow > li").nth(1).get_by_label("Remove").click()
    assert texts(page) == ["b", "a"]
    expect(page.locator("#flow > li").nth(1).locator("textarea")).to_be_focused()


def test_shots_stand_before_the_query(page: Page, tmp_path: pathlib.Path) -> None:
    page.click("#empty")
    page.click("#add-query")
    page.click("#add-shot")
    page.click("#add-shot")
    assert texts(page) == ["#", "abc.", "#", "abc.", "#"]
    # A slot without an image is not sent.
    expect(run(page, "write").get_by_role("alert")).to_contain_text("Image 1 is empty")
    expect(page.locator(".block.wrong")).to_have_count(1)


def test_write_streams_and_stops(page: Page) -> None:
    page.locator(".symbol").nth(2).click()
    odds(page, 2)
    with page.expect_request("**/v1/completions") as request:
        result = run(page, "write")
    assert (request.value.post_data_json or {})["stream"] is True
    name = names(page)[2]
    expect(result.locator(".written")).to_have_text(name)
    # The stop text is no part of the answer, but a token that was written.
    expect(result.locator(".token")).to_have_text([*name, "."])
    result.locator(".token").first.hover()
    expect(result.locator(".detail")).to_contain_text("log-probability")
    expect(result.locator(".alternatives code").first).to_have_text(name[0])
    told = dict(zip(result.locator("dt").all_inner_texts(), result.locator("dd").all_inner_texts()))
    assert told["images encoded"].endswith("of 6") and "cached" in told and "decode" in told

    # The same prompt once more is found in pages: nothing is encoded again.
    run(page, "write")
    expect(result.locator("div:has(> dt:text-is('images encoded')) dd")).to_have_text("0 of 6")

    # An answer that would be long ends where it is stopped. This model writes little, and faster than one can press: it is
    # told to go on, and the network is made slow.
    page.locator("#stop").fill("")
    page.locator("#max_tokens").fill("300")
    page.route(
        "**/v1/completions",
        lambda route: route.continue_(post_data={**(route.request.post_data_json or {}), "ignore_eos": True}),
    )
    slow = {"offline": False, "latency": 0, "downloadThroughput": 3000, "uploadThroughput": -1}
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.emulateNetworkConditions", slow)
    page.locator("#task-write").click()
    expect(page.locator("#task-write b")).to_have_text("Stop")
    expect(result.locator(".written")).to_have_text(re.compile("..."))
    page.locator("#task-write").click()
    expect(page.locator("#said")).to_have_text("Write was stopped.")
    expect(page.locator("#task-write b")).to_have_text("Write")
    assert len(result.locator(".written").inner_text()) < 300
    expect(result.locator(".stats")).to_have_count(0)


def test_settings_are_sent(page: Page) -> None:
    page.locator(".symbol").first.click()
    odds(page, 0)
    for field, value in {"max_tokens": "3", "num_beams": "2", "seed": "7", "stop": "\\n"}.items():
        page.locator(f"#{field}").fill(value)
    with page.expect_request("**/v1/completions") as request:
        result = run(page, "write")
    sent = request.value.post_data_json or {}
    assert {name: sent[name] for name in ["max_tokens", "num_beams", "seed", "stop"]} == {
        "max_tokens": 3, "num_beams": 2, "seed": 7, "stop": "\n"}  # fmt: skip
    assert "logprobs" not in sent
    expect(result.locator(".written")).to_have_text(names(page)[0])


def test_classify_ranks_the_names(page: Page) -> None:
    page.locator(".symbol").nth(1).click()
    odds(page, 1)
    result = run(page, "classify")
    expect(result.locator("tbody tr")).to_have_count(5)
    expect(result.locator("tr.best td").first).to_have_text(names(page)[1] + ".")
    page.locator("#mean").check()
    with page.expect_request("**/v1/classify") as request:
        run(page, "classify")
    assert (request.value.post_data_json or {})["mean"] is True
    page.locator("#choices").fill("")
    expect(run(page, "classify").get_by_role("alert")).to_contain_text("Classify needs names")


def test_score_tells_each_token(page: Page) -> None:
    empty(page, "kep.mul.")
    result = run(page, "score")
    tokens = result.locator(".token")
    expect(tokens).to_have_text(["<s>", *"kep.mul."])
    # One stop of the Tab key for all, arrows within.
    tokens.first.focus()
    page.keyboard.press("End")
    expect(tokens.last).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(tokens.nth(7)).to_be_focused()
    expect(result.locator(".detail")).to_contain_text(re.compile(r"l · .* % · log-probability −"))
    expect(result).to_contain_text(re.compile(r"log-probability −[\d.]+ over 8 tokens, perplexity"))


def test_read_shows_what_each_token_sees(page: Page) -> None:
    page.locator(".symbol").nth(3).click()
    odds(page, 3)
    result = run(page, "read")
    runs = result.locator(".run")
    expect(runs).to_have_count(7)
    expect(runs.nth(2).get_by_role("listbox")).to_have_attribute("aria-label", "Tokens that see image 2")
    letter = runs.nth(2).locator(".token", has_text=re.compile(f"^{names(page)[1][0]}$")).first
    letter.hover()
    expect(result.locator(".detail")).to_contain_text("sees image 2 (160 × 160)")
    expect(page.locator(".block.seen .badge")).to_have_text("2")


def test_what_is_copied_and_saved_runs(page: Page, server: str, tmp_path: pathlib.Path) -> None:
    page.locator(".symbol").nth(4).click()
    odds(page, 4)
    name = names(page)[4]

    def copied(kind: str) -> str:
        page.click(f"[data-copy={kind}]")
        expect(page.locator("#toast")).to_contain_text("Copied")
        return str(page.evaluate("navigator.clipboard.readText()"))

    run(page, "classify")
    command = ["bash", "-c", copied("curl").replace("curl ", "curl -sS ", 1)]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert max(answer["choices"], key=lambda choice: choice["probability"])["choice"] == name + "."
    page.locator("#mean").check()
    body = compile(copied("python"), "copied", "exec")
    assert "post" in body.co_names

    run(page, "write")
    python = copied("python")
    asked: dict[str, Any] = {}

    class Client:
        """In place of openai's, which another test runs."""

        def __init__(self, base_url: str, api_key: str) -> None:
            asked["base_url"] = base_url
            self.completions = self

        def create(self, **fields: Any) -> Any:
            asked.update(fields)
            return SimpleNamespace(choices=[SimpleNamespace(text="x")])

    exec(compile(python.replace("from openai import OpenAI", ""), "copied", "exec"), {"OpenAI": Client})  # noqa: S102
    assert asked["base_url"] == server + "/v1" and len(asked["prompt"]) == 11 and asked["stop"] == "."

    parts = json.loads(copied("file"))
    with page.expect_download() as download:
        page.click("#save")
    file = tmp_path / "prompt.json"
    download.value.save_as(file)
    assert json.loads(file.read_text()) == parts and len(parts) == 11
    generate = [binary(), "generate", str(ROOT / "models/demo"), "--prompt", str(file), "--stop", "."]
    assert subprocess.run(generate, check=True, capture_output=True, text=True).stdout.strip() == name

    def opened() -> None:
        with page.expect_file_chooser() as chooser:
            page.click("#open")
        chooser.value.set_files(file)

    before = texts(page)
    page.click("#empty")
    opened()
    expect(page.locator("#toast")).to_contain_text("11 blocks")
    assert texts(page) == before
    expect(run(page, "write").locator(".written")).to_have_text(name)
    # Paths cannot be followed from a page: they are slots to be filled.
    file.write_text('[{"image": "cat.png"}, {"text": "a"}]')
    opened()
    expect(page.locator(".slot")).to_have_text("pick cat.png")
    file.write_text('[{"video": "a.mp4"}]')
    opened()
    expect(page.locator("#toast")).to_contain_text("part 0: expected")


def test_the_key_is_asked_for_and_kept_in_the_tab(browser: Browser) -> None:
    with serving("--demo", FLAMANT_API_KEY="a-secret-of-this-test") as address:
        watched = Watched(browser, address)
        page = watched.page
        page.goto(address)
        for wrong in [True, False]:
            expect(page.get_by_role("dialog")).to_be_visible()
            page.get_by_label("Key", exact=True).fill("wrong" if wrong else "a-secret-of-this-test")
            page.keyboard.press("Enter")
        expect(page.locator(".symbol")).to_have_count(5)
        expect(page.get_by_role("dialog")).to_be_hidden()
        page.locator(".symbol").nth(1).click()
        assert odds(page, 1) > 50
        page.reload()
        expect(page.locator(".symbol")).to_have_count(5)
        assert page.evaluate("[localStorage.length, document.cookie, sessionStorage.length]") == [0, "", 1]
        # A copy names the variable, not the key.
        page.locator(".symbol").nth(1).click()
        assert odds(page, 1) > 50
        page.click("[data-copy=curl]")
        expect(page.locator("#toast")).to_contain_text("Copied")
        command = page.evaluate("navigator.clipboard.readText()")
        assert "a-secret" not in command and "Bearer $FLAMANT_API_KEY" in command
        # Another tab has none.
        other = watched.context.new_page()
        other.goto(address)
        expect(other.get_by_role("dialog")).to_be_visible()
        watched.done(allowed=[REFUSED])


def test_errors_are_shown_plainly(page: Page) -> None:
    # The server's own: a text that would forge an image.
    empty(page, "a <image> b")
    expect(run(page, "write").get_by_role("alert")).to_contain_text("prompt")

    empty(page, "kep.")
    alert = page.locator("#result").get_by_role("alert")
    error: dict[str, str | None]
    error = {
        "message": "part 0: is wrong",
        "type": "invalid_request_error",
        "param": "prompt.0",
        "code": "invalid_value",
    }
    page.route("**/v1/render", lambda route: route.fulfill(status=400, json={"error": error}))
    run(page, "read")
    expect(alert).to_contain_text("part 0: is wrong")
    expect(alert).to_contain_text("Field prompt.0")
    expect(page.locator(".block.wrong")).to_have_count(1)

    error = {"message": "queue: expected room, found 256 requests", "type": "rate_limit_error", "param": None,
             "code": "queue_full"}  # fmt: skip
    page.route(
        "**/v1/render", lambda route: route.fulfill(status=429, headers={"Retry-After": "2"}, json={"error": error})
    )
    run(page, "read")
    expect(alert.get_by_role("button")).to_have_text(re.compile("Try again in [12] s"))
    page.unroute("**/v1/render")
    expect(alert.get_by_role("button")).to_have_text("Try again")
    alert.get_by_role("button").click()
    expect(page.locator("#result .run")).to_have_count(1)

    page.route("**/v1/completions", lambda route: route.abort())
    run(page, "score")
    expect(alert).to_contain_text("No connection to the server")

    # What was written stays when the rest of it is lost, or an error comes within the stream.
    half = 'data: {"choices": [{"index": 0, "text": "half"}]}\n\n'
    stream = {"status": 200, "headers": {"Content-Type": "text/event-stream"}}
    page.route("**/v1/completions", lambda route: route.fulfill(**stream, body=half))
    run(page, "write")
    expect(page.locator(".written")).to_have_text("half")
    expect(alert).to_contain_text("The connection was lost before the end")
    broken = half + 'data: {"error": {"message": "the device failed", "code": "device"}}\n\n'
    page.unroute("**/v1/completions")
    page.route("**/v1/completions", lambda route: route.fulfill(**stream, body=broken))
    run(page, "write")
    expect(alert).to_contain_text("the device failed")


def test_a_server_that_went_away_is_said_to_be_gone(browser: Browser) -> None:
    with serving("--demo") as address:
        watched = Watched(browser, address)
        watched.page.goto(address)
        expect(watched.page.locator(".symbol")).to_have_count(5)
    watched.page.locator(".symbol").first.click()
    expect(watched.page.locator("#verdict").get_by_role("alert")).to_contain_text("No connection to the server")
    watched.done(allowed=[REFUSED])


def test_the_policy_keeps_other_scripts_out(browser: Browser, server: str) -> None:
    watched = Watched(browser, server)
    page = watched.page
    response = page.goto(server)
    assert response
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'") and "unsafe-eval" not in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    expect(page.locator(".symbol")).to_have_count(5)
    page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "document.title = 'script'";
          document.body.append(script);
          document.body.insertAdjacentHTML("beforeend", "<button id=bad onclick=\\"document.title = 'handler'\\">x</button>");
          fetch("https://example.com/").catch(() => 0);
        }"""
    )
    page.click("#bad")
    expect(page).to_have_title(re.compile("flamant"))
    refused = [text for text in watched.complaints if "Content Security Policy" in text]
    assert len(refused) >= 3
    assert not any(url.startswith("https://example.com") for url in watched.asked)
    watched.done(allowed=["Content Security Policy", "Fetch API cannot load"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 375])
def test_the_layout_fits(browser: Browser, server: str, width: int, scheme: str) -> None:
    watched = Watched(browser, server, width, 812 if width < 500 else 900, color_scheme=scheme, has_touch=width < 500)
    page = watched.page
    page.goto(server)
    expect(page.locator(".symbol")).to_have_count(5)
    (page.locator(".symbol").nth(1).tap if width < 500 else page.locator(".symbol").nth(1).click)()
    assert odds(page, 1) > 50

    def fits() -> bool:
        return bool(page.evaluate("document.documentElement.scrollWidth") == width)

    folder = os.environ.get("FLAMANT_SCREENSHOTS")
    for task in TASKS:
        result = run(page, task)
        if result.locator(".token").count():
            result.locator(".token").nth(1).hover()
        assert fits(), f"{task} is wider than {width}"
        if folder:
            pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=f"{folder}/{width}-{scheme}-{task}.png", full_page=True)
    # The tools of every block stay within the page, too.
    for block in page.locator("#flow > li").all():
        block.locator("textarea, .picture").focus()
        expect(block.get_by_label("Remove")).to_be_visible()
        assert fits()
    watched.done()


def test_a_finger_draws(browser: Browser, server: str) -> None:
    watched = Watched(browser, server, 375, 812, has_touch=True, is_mobile=True)
    page = watched.page
    page.goto(server)
    expect(page.locator(".symbol")).to_have_count(5)
    area = box(page.locator("#canvas"))
    session = page.context.new_cdp_session(page)
    for kind, points in [
        ("touchStart", HAND[1][0][:1]),
        *(("touchMove", [point]) for point in HAND[1][0]),
        ("touchEnd", []),
    ]:
        touches = [
            {"x": area["x"] + area["width"] * x / 100, "y": area["y"] + area["height"] * y / 100} for x, y in points
        ]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})
    assert odds(page, 1) > 50
    assert page.evaluate("scrollY") == 0
    watched.done()
