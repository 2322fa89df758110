"""Makes tests/data/retrieval/nearest.json: which rows numpy finds most similar, as OpenFlamingo's eval/rices.py asks.

    python3.11 -m venv /tmp/retrieval && /tmp/retrieval/bin/pip install numpy==2.2.6
    /tmp/retrieval/bin/python tools/golden_retrieval.py tests/data/retrieval

Features are small whole numbers, brought to unit length in doubles. Some rows are there twice: of equals the first one
comes first, as in a stable sort.
"""

import json
import sys
from pathlib import Path

import numpy

DIMENSION, SUPPORT, QUERIES, SHOTS = 23, 300, 70, 32

random = numpy.random.default_rng(1)
support = random.integers(-99, 100, (SUPPORT, DIMENSION))
support[200:] = support[:100]
queries = random.integers(-99, 100, (QUERIES, DIMENSION))


def unit(rows):
    return rows / numpy.linalg.norm(rows.astype(float), axis=1, keepdims=True)


similarities = unit(queries) @ unit(support).T
# The same in pairs to the last bit, which a matrix product does not promise.
similarities[:, 200:] = similarities[:, :100]
order = numpy.argsort(-similarities, axis=1, kind="stable")[:, : SHOTS + 1]
best = numpy.take_along_axis(similarities, order, axis=1)
gaps = best[:, :-1] - best[:, 1:]
assert gaps[gaps != 0].min() > 1e-6, "two rows are too close for single precision: take another seed"

fixture = {"support": support.tolist(), "queries": queries.tolist()}
fixture["rows"] = order[:, :SHOTS].tolist()
fixture["similarities"] = [[round(value, 9) for value in row] for row in best[:, :SHOTS].tolist()]
Path(sys.argv[1], "nearest.json").write_text(json.dumps(fixture, separators=(",", ":")) + "\n")
