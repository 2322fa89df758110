"""Two replicas of the OpenAI-compatible server behind Ray Serve, and a client that keeps its shots on one of them.

    pip install './python[ray]' openai
    python examples/ray/serve.py [MODEL]

Without MODEL the demo model of the package answers. On GPUs: `engine={"device": "cuda"}` and
`ray_actor_options={"num_gpus": 1}`; with `autoscaling_config={"min_replicas": 1, "max_replicas": 8}` instead of
`num_replicas` Ray starts as many as the load asks for.
"""

import json
import os
import sys
import urllib.request

import openai
from ray import serve

import flamant.ray

PORT = int(os.environ.get("PORT", "8000"))
ADDRESS = f"http://127.0.0.1:{PORT}"

model = sys.argv[1] if len(sys.argv) > 1 else None
application = flamant.ray.deployment(
    model,
    engine={"device": "cpu", "max_sequences": 16},
    num_replicas=2,
    ray_actor_options={"num_cpus": 1},
)
serve.start(http_options={"host": "127.0.0.1", "port": PORT})
serve.run(application.bind())

prompt = [{"type": "text", "text": "kep.mul.kep.mul."}]
# All requests with these shots go to the replica that has computed them.
request = urllib.request.Request(
    f"{ADDRESS}/v1/render",
    data=json.dumps({"prompt": prompt}).encode(),
    headers={"Content-Type": "application/json"},
)
with urllib.request.urlopen(request) as response:
    key = json.load(response)["prefix_key"]

client = openai.OpenAI(base_url=f"{ADDRESS}/v1", api_key="none", max_retries=5)
name = client.models.list().data[0].id
stream = client.completions.create(
    model=name,
    prompt=prompt,
    max_tokens=8,
    stream=True,
    extra_headers={"x-session-id": key},
)
for chunk in stream:
    print(chunk.choices[0].text if chunk.choices else "", end="", flush=True)
print()
serve.shutdown()
