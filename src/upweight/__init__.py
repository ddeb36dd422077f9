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
    from upweight.applications.attack import attack as attack
    from upweight.applications.change import Change as Change
    from upweight.applications.explain import explain as explain
    from upweight.applications.mislabeled import mislabeled as mislabeled
    from upweight.applications.patch import Patch as Patch
    from upweight.applications.patch import repair as repair
    from upweight.applications.perturb import perturb as perturb
    from upweight.applications.slices import slices as slices
    from upweight.applications.what_if import what_if as what_if
    from upweight.core.examples import Examples as Examples
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
    from upweight.linear.measurement import Loss as Loss
    from upweight.linear.measurement import Margin as Margin
    from upweight.linear.measurement import Probability as Probability
    from upweight.methods.chance import Chance as Chance
    from upweight.methods.influence import Influence as Influence
    from upweight.methods.leave_one_out import LeaveOneOut as LeaveOneOut
    from upweight.methods.registry import methods as methods
    from upweight.models.frozen import FrozenFeatures as FrozenFeatures
    from upweight.models.pytorch import TorchModel as TorchModel
    from upweight.models.registry import explainable as explainable
    from upweight.report.page import write_report as write_report
    from upweight.report.write import write_page as write_page

__version__ = "0.1.0"

# Looked up on first use: `upweight --help` and a script that only loads scores need no scipy and no scikit-learn.
_HOME = {
    "attack": "upweight.applications.attack",
    "Change": "upweight.applications.change",
    "explain": "upweight.applications.explain",
    "mislabeled": "upweight.applications.mislabeled",
    "Patch": "upweight.applications.patch",
    "repair": "upweight.applications.patch",
    "perturb": "upweight.applications.perturb",
    "slices": "upweight.applications.slices",
    "what_if": "upweight.applications.what_if",
    "Examples": "upweight.core.examples",
    "Objective": "upweight.core.model",
    "Scores": "upweight.core.scores",
    "Unit": "upweight.core.scores",
    "Check": "upweight.evaluate.verify",
    "verify": "upweight.evaluate.verify",
    "Loss": "upweight.linear.measurement",
    "Margin": "upweight.linear.measurement",
    "Probability": "upweight.linear.measurement",
    "methods": "upweight.methods",
    "Chance": "upweight.methods.chance",
    "Influence": "upweight.methods.influence",
    "LeaveOneOut": "upweight.methods.leave_one_out",
    "FrozenFeatures": "upweight.models.frozen",
    "TorchModel": "upweight.models.pytorch",
    "explainable": "upweight.models.registry",
    "write_page": "upweight.report.write",
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
