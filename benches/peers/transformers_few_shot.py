"""Times transformers on the CPU on the queries of `benches/engine.rs`: 8 shots, one more image, a few tokens written.

    PYTHON=path/to/python benches/engine.sh     # both sides in one run

Each query is run as `generate` runs it: the whole prompt with all its images, then token after token with the cache.
Needs torch, transformers, safetensors. Prints one line of JSON; float32, all cores, the median of the queries timed.
"""
import json
import sys
import time

import torch
from transformers import IdeficsForVisionText2Text

folder, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 4
model = IdeficsForVisionText2Text.from_pretrained(folder, dtype=torch.float32).eval()
prompts = json.load(open(f"{folder}/few_shot_ids.json"))
side = model.config.vision_config.image_size


@torch.inference_mode()
def run(query):
    ids = torch.tensor([query["ids"]])
    images, length = query["images"], ids.shape[1]
    pixels = torch.rand(1, images, 3, side, side)
    seen = torch.zeros(1, length, images, dtype=torch.long)
    for token, image in enumerate(query["media"]):
        if image is not None:
            seen[0, token, image] = 1
    start = time.perf_counter()
    out = model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, image_attention_mask=seen, use_cache=True)
    for _ in range(prompts["answer"] - 1):
        length += 1
        out = model(
            input_ids=out.logits[:, -1:].argmax(-1), attention_mask=torch.ones(1, length, dtype=torch.long),
            past_key_values=out.past_key_values, use_cache=True, perceiver_embeddings=out.image_hidden_states,
            image_attention_mask=seen[:, -1:],
        )
    return time.perf_counter() - start


run(prompts["queries"][0])
times = sorted(run(query) for query in prompts["queries"][:count])
seconds = times[len(times) // 2]
print(json.dumps({"peer": "transformers", "seconds_per_query": seconds, "queries_per_second": 1 / seconds, "threads": torch.get_num_threads()}))
