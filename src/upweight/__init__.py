"""Which training examples caused this prediction, and what would change without them?

>>> import upweight as uw
>>> from sklearn.datasets import load_iris
>>> from sklearn.linear_model import LogisticRegression
>>> x, y = load_iris(return_X_y=True)
>>> train, queries = uw.Examples(x[::2], y[::2]), uw.Examples(x[1::2], y[1::2])
>>> model = uw.explainable(LogisticRegression().fit(train.x, train.y), train)
>>> scores = uw.Influence().fit(model, train).attribute(queries)
>>> scores.values.shape
(75, 75)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from upweight.core.examples import Examples as Examples
    from upweight.core.measurement import Loss as Loss
    from upweight.core.measurement import Margin as Margin
    from upweight.core.measurement import Probability as Probability
    from upweight.core.model import Objective as Objective
    from upweight.core.recipes import CG as CG
    from upweight.core.recipes import EKFAC as EKFAC
    from upweight.core.recipes import KFAC as KFAC
    from upweight.core.recipes import Arnoldi as Arnoldi
    from upweight.core.recipes import Diagonal as Diagonal
    from upweight.core.recipes import Direct as Direct
    from upweight.core.recipes import EmpiricalFisher as EmpiricalFisher
    from upweight.core.recipes import GaussNewton as GaussNewton
    from upweight.core.recipes import Hessian as Hessian
    from upweight.core.recipes import Identity as Identity
    from upweight.core.recipes import LiSSA as LiSSA
    from upweight.core.recipes import Nystrom as Nystrom
    from upweight.core.scores import Scores as Scores
    from upweight.core.scores import Unit as Unit
    from upweight.evaluate.verify import Check as Check
    from upweight.evaluate.verify import verify as verify
    from upweight.methods.boostin import BoostIn as BoostIn
    from upweight.methods.chance import Chance as Chance
    from upweight.methods.forest_weights import ForestWeights as ForestWeights
    from upweight.methods.influence import Influence as Influence
    from upweight.methods.leaf_influence import LeafInfluence as LeafInfluence
    from upweight.methods.leaf_refit import LeafRefit as LeafRefit
    from upweight.methods.leave_one_out import LeaveOneOut as LeaveOneOut
    from upweight.methods.registry import methods as methods
    from upweight.methods.tree_sim import TreeSim as TreeSim
    from upweight.methods.trex import TREX as TREX
    from upweight.models.pytorch import TorchModel as TorchModel
    from upweight.models.registry import explainable as explainable
    from upweight.report.page import write_report as write_report

__version__ = "0.1.0"

# Looked up on first use: `upweight --help` and a script that only loads scores need no scipy and no scikit-learn.
_HOME = {
    "Examples": "upweight.core.examples",
    "Objective": "upweight.core.model",
    "Scores": "upweight.core.scores",
    "Unit": "upweight.core.scores",
    "Check": "upweight.evaluate.verify",
    "verify": "upweight.evaluate.verify",
    "Loss": "upweight.core.measurement",
    "Margin": "upweight.core.measurement",
    "Probability": "upweight.core.measurement",
    "methods": "upweight.methods",
    "Chance": "upweight.methods.chance",
    "BoostIn": "upweight.methods.boostin",
    "ForestWeights": "upweight.methods.forest_weights",
    "LeafInfluence": "upweight.methods.leaf_influence",
    "LeafRefit": "upweight.methods.leaf_refit",
    "TreeSim": "upweight.methods.tree_sim",
    "TREX": "upweight.methods.trex",
    "Influence": "upweight.methods.influence",
    "LeaveOneOut": "upweight.methods.leave_one_out",
    "TorchModel": "upweight.models.pytorch",
    "explainable": "upweight.models.registry",
    "write_report": "upweight.report.page",
    **dict.fromkeys(
        (
            "Arnoldi",
            "CG",
            "Diagonal",
            "Direct",
            "EKFAC",
            "EmpiricalFisher",
            "GaussNewton",
            "Hessian",
            "Identity",
            "KFAC",
            "LiSSA",
            "Nystrom",
        ),
        "upweight.core.recipes",
    ),
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'upweight' has no attribute {name!r}")
    home = importlib.import_module(_HOME[name])
    value = home if name == "methods" else getattr(home, name)  # the room of methods is itself what lists them
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
