"""A file of requests for `flamant batch`, answered by as many engines as the cluster has room for.

    pip install './python[ray]'
    python examples/ray/batch.py requests.jsonl answers/ [MODEL]

Each answer is a row with `id` and `answer`, the line that `flamant batch` would have written. On GPUs: `num_gpus=1`
in place of `num_cpus`, and `fn_constructor_kwargs={"device": "cuda"}`.
"""

import sys

import ray

import flamant.ray

source, target = sys.argv[1:3]
model = sys.argv[3] if len(sys.argv) > 3 else None
engines = ray.data.ActorPoolStrategy(min_size=1, max_size=4)
# Lines as text: read_json would give every part of every prompt the keys of all others.
lines = ray.data.read_text(source)
# A small file is one block, which one engine would answer alone.
lines = lines.repartition(8)
answers = lines.map_batches(
    flamant.ray.Lines,
    fn_constructor_args=[model],
    fn_constructor_kwargs={"device": "cpu"},
    batch_size=256,
    num_cpus=1,
    compute=engines,
)
answers.write_parquet(target)
