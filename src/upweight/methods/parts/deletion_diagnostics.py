"""Deletion diagnostics of a model with an exact curvature: leverage, Cook's distance, DFBETA and a table of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor, Fitted
from upweight.core.choices import require_choice
from upweight.core.curvature import Curvature, ExactCurvature
from upweight.core.model import Differentiable
from upweight.core.rows import Rows
from upweight.linear.curvature import LinearCurvature
from upweight.linear.deletion_diagnostics import deletion_diagnostics
from upweight.linear.model import LinearModel

if TYPE_CHECKING:
    import pandas

Array = NDArray[np.float64]
MAX_NAMED = 10  # examples that a warning names


class DeletionDiagnostics(Fitted[Attributor, Differentiable]):
    """A fitted method with a curvature that, if it is exact, knows what a fit without each example would be.

    Attributes:
        curvature: on the training set.
        plain_rows: gradients of the training losses.
        followed: positions of the examples whose removal Newton steps followed, in ascending order.
        shifts: how the parameters move without each of these, (followed, parameters).
    """

    curvature: Curvature
    plain_rows: Rows
    followed: NDArray[np.intp]
    shifts: Array

    def leverage(self, information: Literal["observed", "expected"] = "observed") -> Array:
        """h_i in [0, outputs]: the share of its own prediction that each training example decides, shape (n,).

        Args:
            information: "observed" takes the second derivatives of the loss at the targets, which scores are corrected
                with (statsmodels' default). "expected" takes the Fisher information (R's hat values, as in
                `cooks_distance` and `summary_frame`). Both agree for least squares and for canonical links (logistic,
                softmax, Poisson with a log link); for gamma and other Tweedie losses they do not.
        """
        self.require_unchanged()
        return self._with_information(information).leverage()

    def cooks_distance(self, information: Literal["observed", "expected"] = "expected") -> Array:
        """Cook's distance D_i = Δθᵢᵀ H Δθᵢ / (p φ), (n,), with Δθᵢ the step without i (Cook 1977; Pregibon 1981).

        p is the sum of the leverages, and φ Pearson's estimate of the dispersion (1 for a likelihood that has none).
        H and Δθᵢ take the expected information, as R does, or the observed one (see `leverage`). NaN, with a warning,
        for an example of leverage 1: without it the data do not determine the model.
        """
        self.require_unchanged()
        exact = self._with_information(information)
        corrected = exact.corrected(self.plain_rows)
        effective = float(exact.leverage().sum())
        distances = np.asarray(
            exact.paired(corrected, corrected) / (effective * self.model.dispersion(self.train, effective))
        )
        return self._without_undetermined(distances, "Cook's distance", exact)

    def dfbeta(self) -> Array:
        """DFBETA_i = θ̂ − θ̂₋ᵢ, shape (n, parameters), exact for least squares (Belsley, Kuh & Welsch 1980).

        The parameters are those of `model.parameters`; `summary_frame` has those of the estimator, scaled and with
        names. NaN, with a warning, for an example of leverage 1: without it the data do not determine the model.
        """
        self.require_unchanged()
        exact = self._exact()
        shifts = exact.solve(exact.corrected(self.plain_rows)).rows.dense()
        shifts[self.followed] = self.shifts if len(self.followed) else shifts[self.followed]
        return self._without_undetermined(-shifts, "DFBETA", exact)

    def summary_frame(self, information: Literal["observed", "expected"] = "expected") -> pandas.DataFrame:
        """Deletion diagnostics of a linear model, one row per training example, with statsmodels' column names.

        `dfb_<coefficient>` (DFBETAS: the change of the estimator's coefficient over its standard error), `cooks_d`,
        `standard_resid` and `student_resid` (internally and externally studentised Pearson residuals), `hat_diag`
        (leverage), `dffits_internal`, `dffits`, and `resid_press` (the target minus its prediction without the row).
        Each is one Newton step, exact for least squares; `dfbeta()` follows other losses to the refit. `student_resid`
        and `dffits` take the dispersion without the row, and so do the standard errors of least squares. With l2, its
        Hessian is part of H, from which leverages, p and standard errors are taken. Models with several outputs have no
        single residual: only `dfb_…`, `cooks_d` and `hat_diag`. A row of leverage 1 is NaN, with a warning; a row of
        weight 0 has no studentised residual.

        Args:
            information: as in `leverage`; "expected" gives R's values.

        Raises:
            TypeError: the curvature is not that of a linear model, its loss is not a likelihood (a hinge), or its
                columns have no coefficients (a kernel).
            ModuleNotFoundError: pandas is not installed.
        """
        import pandas as pd

        self.require_unchanged()
        exact = self._with_information(information)
        if not isinstance(exact, LinearCurvature):
            raise TypeError(f"expected the curvature of a linear model, got {type(exact).__name__}")
        table = deletion_diagnostics(cast(LinearModel, self.model), self.train, exact)
        self._warn_of_undetermined("row", exact)
        return pd.DataFrame(table, index=pd.Index(self.train.ids, name="id"))

    def _with_information(self, information: str) -> ExactCurvature:
        require_choice("information", information, "observed", "expected")
        exact = self._exact()
        return exact.expected() if information == "expected" else exact

    def _without_undetermined(self, values: Array, name: str, exact: ExactCurvature) -> Array:
        """The values with NaN for examples of leverage 1, and a warning that names them."""
        values[list(exact.undetermined())] = np.nan
        self._warn_of_undetermined(name, exact)
        return values

    def _warn_of_undetermined(self, name: str, exact: ExactCurvature) -> None:
        positions = list(exact.undetermined())
        if positions:
            warnings.warn(
                f"{self._of_leverage_one(positions)}: the model passes through it, and without it the data do not "
                f"determine the model, so its {name} is NaN",
                stacklevel=4,
            )

    def _of_leverage_one(self, positions: Iterable[int]) -> str:
        ids = self.train.ids[list(positions)].tolist()
        names = ", ".join(map(repr, ids[:MAX_NAMED])) + (", …" if len(ids) > MAX_NAMED else "")
        return (
            f"training example {names} has leverage 1"
            if len(ids) == 1
            else (f"{len(ids)} training examples ({names}) have leverage 1 each")
        )

    def _exact(self) -> ExactCurvature:
        if not isinstance(self.curvature, ExactCurvature):
            raise TypeError(
                f"expected an exact Hessian, which removals need; {type(self.curvature).__name__} is not one, and "
                "answers `attribute`, `top` and `self_influence` alone"
            )
        return self.curvature
