"""transformers behind FastAPI on the queries of `benches/serve.rs`: 8 shots, one more image, a few tokens written.

    PYTHON=path/to/python benches/serve.sh     # both sides in one run

One process serves: a route decodes the images of a query, and runs prompt and tokens on all cores, one query at a time, as
`generate` runs it. Clients ask it over HTTP side by side. Needs torch, transformers, safetensors, fastapi, uvicorn, pillow.
Prints one line of JSON; float32.
"""
import base64
import io
import json
import random
import socket
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import fastapi
import numpy
import torch
import uvicorn
from PIL import Image
from transformers import IdeficsForVisionText2Text

folder, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8
model = IdeficsForVisionText2Text.from_pretrained(folder, dtype=torch.float32).eval()
prompts = json.load(open(f"{folder}/few_shot_ids.json"))
side = model.config.vision_config.image_size
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
app = fastapi.FastAPI()
alone = threading.Lock()


def pixels(uri):
    image = Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))).convert("RGB").resize((side, side), Image.BICUBIC)
    return (torch.from_numpy(numpy.array(image)).permute(2, 0, 1) / 255 - MEAN) / STD


@app.post("/generate")
def generate(query: dict = fastapi.Body()):
    images = torch.stack([pixels(uri) for uri in query["images"]])[None]
    with alone, torch.inference_mode():
        ids = torch.tensor([query["ids"]])
        length = ids.shape[1]
        seen = torch.zeros(1, length, images.shape[1], dtype=torch.long)
        for token, image in enumerate(query["media"]):
            if image is not None:
                seen[0, token, image] = 1
        out = model(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=images, image_attention_mask=seen, use_cache=True
        )
        written = [int(out.logits[0, -1].argmax())]
        while len(written) < query["answer"]:
            length += 1
            out = model(
                input_ids=torch.tensor([written[-1:]]), attention_mask=torch.ones(1, length, dtype=torch.long),
                past_key_values=out.past_key_values, use_cache=True, perceiver_embeddings=out.image_hidden_states,
                image_attention_mask=seen[:, -1:],
            )
            written.append(int(out.logits[0, -1].argmax()))
    return {"token_ids": written}


def noise():
    out = io.BytesIO()
    Image.frombytes("RGB", (side, side), random.randbytes(side * side * 3)).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def ask(address, body):
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    return len(json.load(urllib.request.urlopen(request))["token_ids"])


listener = socket.create_server(("127.0.0.1", 0))
server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
while not server.started:
    time.sleep(0.05)
address = f"http://127.0.0.1:{listener.getsockname()[1]}/generate"
shots = [noise() for _ in range(prompts["queries"][0]["images"] - 1)]
bodies = [
    json.dumps({"ids": query["ids"], "media": query["media"], "images": [*shots, noise()], "answer": prompts["answer"]}).encode()
    for query in prompts["queries"]
]
ask(address, bodies[0])
with ThreadPoolExecutor(8) as clients:
    begun = time.perf_counter()
    tokens = list(clients.map(lambda number: ask(address, bodies[number % len(bodies)]), range(count)))
    seconds = time.perf_counter() - begun
assert tokens == [prompts["answer"]] * count
print(json.dumps({"peer": "transformers behind FastAPI", "queries_per_second": count / seconds, "threads": torch.get_num_threads()}))
