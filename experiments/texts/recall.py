"""Recall of facts whose names do not leak: a small language model, and the sentences that taught it an answer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from benchmarks.nets import Block
from experiments.results import Result, Row
from experiments.texts.encoder import Array, Encoder
from experiments.texts.facts import PEOPLE, Facts, Sentence, facts
from numpy.typing import NDArray
from torch import Tensor, nn

import upweight as uw

WIDTH, BLOCKS = 64, 2
TRAINING = uw.Training(optimiser="adamw", lr=3e-3, weight_decay=1.0, epochs=40, batch_size=64)


class Reader(nn.Module):
    """Two blocks of causal attention; the input ends before the answer."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, WIDTH), nn.Embedding(3, WIDTH)
        nn.init.normal_(self.tokens.weight, std=0.3)
        self.dropout = nn.Dropout(0.1)
        self.blocks = nn.Sequential(*(Block(WIDTH) for _ in range(BLOCKS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        said = self.dropout(self.tokens(ids)) + self.places(torch.arange(ids.shape[1]))
        return self.head(self.norm(self.blocks(said))[:, -1])


def losses(net: nn.Module, batch: Any) -> Tensor:
    """−log p of the answer."""
    return F.cross_entropy(net(batch.x[:, :-1]), batch.x[:, -1], reduction="none")


def examples(known: Facts, sentences: list[Sentence], prefix: str = "") -> uw.Examples:
    ids = [f"{prefix}{i}" for i in range(len(sentences))]
    return uw.Examples(known.ids(sentences), ids=ids, shown=[" ".join(sentence) for sentence in sentences])


METHODS: dict[str, Any] = {
    "BM25": uw.BM25(),
    "RepSim, the model's own embeddings": uw.RepSim(),
    "GradDot": uw.GradDot(),
    "GradCos": uw.GradCos(),
    "Influence, empirical Fisher": uw.Influence(curvature=uw.EmpiricalFisher()),
    "Influence, EK-FAC": uw.Influence(curvature=uw.EKFAC()),
}
OURS = "Influence, EK-FAC"


@dataclass(frozen=True, eq=False)
class Asked:
    """The model, and the questions that it answers by both names."""

    known: Facts
    model: uw.TorchModel
    train: uw.Examples
    questions: dict[str, uw.Examples]
    gold: list[NDArray[np.intp]]
    right: dict[str, float]

    @classmethod
    def trained(cls, seed: int = 0) -> Asked:
        known = facts(seed)
        train = examples(known, known.sentences)
        model = uw.TorchModel.trained(lambda _: Reader(known.vocabulary), losses, train, training=TRAINING)
        both = {"alias": examples(known, known.aliased, "alias "), "name": examples(known, known.named, "name ")}
        right = {kind: _answered(model, questions) for kind, questions in both.items()}
        answered = np.flatnonzero(right["alias"] & right["name"])
        share = {kind: float(of.mean()) for kind, of in right.items()}
        questions = {kind: of.take(answered) for kind, of in both.items()}
        return cls(known, model, train, questions, [known.gold[i] for i in answered], share)

    def scores(self, method: Any) -> dict[str, Array]:
        fitted = method.fit(self.model, self.train)
        return {kind: fitted.attribute(of).values for kind, of in self.questions.items()}

    def baselines(self, encoder: Encoder) -> dict[str, dict[str, Array]]:
        texts = encoder.pooled(list(self.train.shown))
        rng, loss = np.random.default_rng(0), -self.model.measure(self.train)
        return {
            "embeddings (MiniLM)": {k: encoder.pooled(list(of.shown)) @ texts.T for k, of in self.questions.items()},
            "highest loss": {k: np.tile(loss, (len(of), 1)) for k, of in self.questions.items()},
            "chance": {k: rng.normal(size=(len(of), len(texts))) for k, of in self.questions.items()},
        }


def _answered(model: uw.TorchModel, questions: uw.Examples) -> NDArray[np.bool_]:
    with torch.no_grad():
        said = model.network.net.eval()(torch.as_tensor(questions.x[:, :-1])).argmax(1).numpy()
    return np.asarray(said == questions.x[:, -1])


def reciprocal_rank(scores: Array, gold: list[NDArray[np.intp]]) -> float:
    """Mean over the questions of 1 / the rank of the first sentence with the answer; ties count against it."""
    ranks = [1 + (np.delete(row, of) >= row[of].max()).sum() for row, of in zip(scores, gold, strict=True)]
    return float(np.mean(1 / np.array(ranks)))


def result(encoder: Encoder) -> Result:
    asked, found, seconds = Asked.trained(), dict[str, dict[str, float]](), dict[str, float]()
    print(asked.right, len(asked.gold), flush=True)
    for name, method in METHODS.items():
        start = time.process_time()
        scores = asked.scores(method)
        seconds[name] = time.process_time() - start
        found[name] = {kind: reciprocal_rank(of, asked.gold) for kind, of in scores.items()}
        print(name, found[name], f"{seconds[name]:.1f}", flush=True)
    for name, scores in asked.baselines(encoder).items():
        found[name] = {kind: reciprocal_rank(of, asked.gold) for kind, of in scores.items()}
    ours, lexical = found[OURS], max(found["BM25"]["alias"], found["embeddings (MiniLM)"]["alias"])
    rows = [
        Row(f"{OURS}: MRR by alias, beside the better of BM25 and embeddings", "≥ 2 ×",
            f"{ours['alias']:.3f}, {lexical:.3f}: {ours['alias'] / lexical:.1f} ×", ours["alias"] >= 2 * lexical),
        Row(f"{OURS}: MRR by alias, beside that by name", "≥ half",
            f"{ours['alias']:.3f}, {ours['name']:.3f}", ours["alias"] >= ours["name"] / 2),
    ]  # fmt: skip
    rows += [
        Row(f"{name}: MRR by alias; by name", "–", f"{of['alias']:.3f}; {of['name']:.3f}"
            + (f" ({seconds[name]:.0f} s)" if name in seconds else ""))
        for name, of in found.items()
    ]  # fmt: skip
    size = sum(p.numel() for p in asked.model.network.net.parameters())
    return Result(
        title="Recall of facts whose names do not leak",
        claim="The sentences that taught the answer are found although they share no name with the question.",
        rows=rows,
        settings=f"{PEOPLE} people with two names, {len(asked.train):,} sentences, "
        f"{len(asked.known.aliased)} questions; a language model of two blocks, {size:,} parameters, one token for a "
        f"name, a wording or an answer, {TRAINING.epochs} epochs of AdamW. It answers {asked.right['alias']:.0%} by "
        f"alias and {asked.right['name']:.0%} by name; the {len(asked.gold)} that it answers by both are asked. Two "
        "sentences tell each answer.",
        notes=[
            "Targets are those of this package. Baselines have the texts with question and answer; the answer is "
            "shared by a fifth of a relation's sentences.",
        ],
        numbers={"mrr": found, "right": asked.right},
    )
