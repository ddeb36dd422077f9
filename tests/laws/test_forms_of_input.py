"""Inputs of every form: if they are changed in place, answers never come from what was computed before."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import upweight as uw
from support.linear_families import PROBLEMS
from support.network_families import cross_entropy, mlp
from support.tree_families import BOOSTERS
from upweight.testing import Case, EstimatorFamily, Family, Law, try_law
from upweight.testing.families import TIGHT, scaled
from upweight.testing.networks import NetworkFamily, pretrained

LAWS = (Law.IDENTITY, Law.CHANGED_QUERIES, Law.CHANGED_TRAINING, Law.SAVED)


def as_sparse() -> Any:
    x, y = scaled(load_breast_cancer, 6)()
    return sparse.csr_matrix(x * (abs(x) > 0.5)), y


def as_frame() -> Any:
    x, y = scaled(load_breast_cancer, 6)()
    return pd.DataFrame(x, columns=list("abcdef")), y


@dataclass(frozen=True, repr=False, eq=False)
class TensorFamily(NetworkFamily):
    """Digits as tensors, each inside a mapping if `in_mappings`."""

    in_mappings: bool = False

    def examples(self) -> tuple[uw.Examples, uw.Examples]:
        return tuple(self._tensors(examples) for examples in super().examples())

    def model(self, train: uw.Examples) -> Any:
        net = self.make().double()
        net.load_state_dict(pretrained(self.make)[0])
        return uw.TorchModel(net, cross_entropy, objective=uw.Objective("mean", l2=0.01), collate=self._batch)

    def _tensors(self, examples: uw.Examples) -> uw.Examples:
        pixels = torch.as_tensor(examples.x)
        return examples.replaced(x=[{"pixels": image.clone()} for image in pixels] if self.in_mappings else pixels)

    def _batch(self, examples: uw.Examples) -> Any:
        x = torch.stack([example["pixels"] for example in examples.x]) if self.in_mappings else examples.x
        return SimpleNamespace(x=x, y=torch.as_tensor(examples.y))

    def others(self, model: Any) -> dict[str, Any]:
        return {"parameters": model.with_parameters(model.parameters + 1e-9)}


def linear() -> Any:
    return LogisticRegression(**TIGHT)


FORMS: list[tuple[Family, type]] = [
    (EstimatorFamily("sparse matrix", as_sparse, linear, other={"C": 2.0}), uw.Influence),
    (EstimatorFamily("data frame", as_frame, lambda: make_pipeline(StandardScaler(), linear())), uw.Influence),
    (PROBLEMS[-1], uw.GradDot),
    (TensorFamily("tensors", mlp), uw.Influence),
    (TensorFamily("mappings of tensors", mlp, in_mappings=True), uw.GradDot),
    (EstimatorFamily("frame for trees", as_frame, BOOSTERS[0].estimator), uw.LeafRefit),
]


@pytest.fixture(params=FORMS, ids=lambda pair: pair[0].name, scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    family, method = request.param
    return Case(method(), family)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name.lower())
def test_a_law_holds_for_inputs_of_this_form(law: Law, case: Case) -> None:
    try_law(law, case).require()
