"""Remakes the golden fixtures of tests/data from the reference implementations.

Three environments are needed (Python 3.11); each makes its share of the fixtures, in this order:

    python3.11 -m venv new && new/bin/pip install -r tools/requirements.txt
    python3.11 -m venv old && old/bin/pip install torch==2.11.0 torchvision==0.26.0
    old/bin/pip install --no-deps -r tools/requirements-4.44.txt
    python3.11 -m venv between && between/bin/pip install torch==2.11.0
    between/bin/pip install --no-deps -r tools/requirements-4.45.txt
    new/bin/python tools/golden.py --output tests/data
    old/bin/python tools/golden.py --output tests/data
    between/bin/python tools/golden.py --output tests/data

The new one has transformers 5.17 and peft (IDEFICS and Llama-3.2-Vision cases, OpenFlamingo 0.0.2, Otter, flamingo-mini),
the old one transformers 4.44.2, open_flamingo 2.0.1 and open_clip 2.20 (OpenFlamingo cases, IDEFICS cases as 4.44.2 saves
them, semantics/*.json). The one between has transformers 4.45.2, which says what it makes of the Llama-3.2-Vision cases.

Everything is computed in float32 on the CPU; weights stored in half precision are widened first.
"""

import argparse
import pathlib
import warnings

import torch
import transformers

PARTS = {
    "5.17": ["golden_idefics", "golden_mllama", "golden_peft", "golden_v1", "golden_otter", "golden_flamingo_mini"],
    "4.45": ["golden_mllama"],
    "4.44": ["golden_idefics", "golden_open_flamingo", "golden_semantics"],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent.parent / "tests" / "data")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    for part in PARTS[transformers.__version__.rpartition(".")[0]]:
        __import__(part).all_cases(arguments.output, arguments.only)


if __name__ == "__main__":
    main()
