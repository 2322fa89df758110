"""Writes tests/data/semantics/chat.json: conversations as the chat template of a published model puts them.

    new/bin/python tools/golden_chat.py mllama FOLDER tests/data

FOLDER holds the chat_template.json of meta-llama/Llama-3.2-11B-Vision-Instruct, whose licence keeps it out of this
repository. The environment is that of tools/golden.py; the day is the one that the template names by itself.
"""

import json
import pathlib
import sys

from transformers.utils.chat_template_utils import render_jinja_template

import golden_common as common

IMAGE = {"image": "a.png"}
CONVERSATIONS = [
    [("user", [IMAGE, "What is in the picture?"])],
    [("user", ["What is a fox?"])],
    [("user", [IMAGE])],
    [("system", ["Be brief."]), ("user", ["What is a fox?"])],
    [("user", [" Compare", IMAGE, IMAGE, "please.\n"]), ("assistant", ["Two dogs."]), ("user", ["Are you sure?"])],
    [("user", ["One."]), ("assistant", ["Two.\n\n"]), ("user", ["3:", IMAGE]), ("assistant", ["4"]), ("user", ["5"])],
]


def main(family, folder, output):
    template = json.loads((folder / "chat_template.json").read_text())["chat_template"]
    rendered = []
    for conversation in CONVERSATIONS:
        turns, messages = [], []
        for role, parts in conversation:
            turns.append({"role": role, "content": [part if part is IMAGE else {"text": part} for part in parts]})
            content = [{"type": "image"} if part is IMAGE else {"type": "text", "text": part} for part in parts]
            messages.append({"role": role, "content": content if role == "user" else parts[0]})
        arguments = dict(add_generation_prompt=True, bos_token="<|begin_of_text|>", date_string="26 Jul 2024")
        (text,), _ = render_jinja_template([messages], chat_template=template, **arguments)
        rendered.append({"turns": turns, "text": text})
    path = output / "semantics" / "chat.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    common.write_json(path, {**known, family: rendered}, None)


if __name__ == "__main__":
    main(sys.argv[1], *map(pathlib.Path, sys.argv[2:]))
