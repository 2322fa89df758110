"""Times transformers on the CPU on the model of `benches/cpu.rs`: a prompt of 4 images and 128 tokens, then single tokens.

    PYTHON=path/to/python benches/cpu.sh        # both sides in one run

Needs torch, transformers, safetensors. Prints one line of JSON; float32, all cores, key/value cache on, as `generate` does.
The image embeddings are kept from the prompt on, so a token pays for the projection of the images and not for the tower.
"""
import json
import sys
import time

import torch
from transformers import IdeficsForVisionText2Text

folder, steps = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8
model = IdeficsForVisionText2Text.from_pretrained(folder, dtype=torch.float32).eval()
prompt = json.load(open(f"{folder}/prompt_ids.json"))
ids = torch.tensor([prompt["ids"]])
images = prompt["images"]
side = model.config.vision_config.image_size
pixels = torch.rand(1, images, 3, side, side)
seen = torch.zeros(1, ids.shape[1], images, dtype=torch.long)
for token, image in enumerate(prompt["media"]):
    if image is not None:
        seen[0, token, image] = 1


@torch.inference_mode()
def run():
    start = time.perf_counter()
    out = model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, image_attention_mask=seen, use_cache=True)
    first = time.perf_counter() - start
    cache, media, length = out.past_key_values, out.image_hidden_states, ids.shape[1]
    token = out.logits[:, -1:].argmax(-1)
    times = []
    for _ in range(steps):
        length += 1
        start = time.perf_counter()
        out = model(
            input_ids=token, attention_mask=torch.ones(1, length, dtype=torch.long), past_key_values=cache, use_cache=True,
            perceiver_embeddings=media, image_attention_mask=seen[:, -1:],
        )
        times.append(time.perf_counter() - start)
        cache, token = out.past_key_values, out.logits[:, -1:].argmax(-1)
    return first, sorted(times)[len(times) // 2]


run()
rounds = [run() for _ in range(3)]
first, step = (sorted(column)[1] for column in zip(*rounds))
print(json.dumps({"peer": "transformers", "prompt_seconds": first, "token_seconds": step, "threads": torch.get_num_threads()}))
