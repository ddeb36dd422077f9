"""`Attributor`, the recipe of a method: its `fit` returns a `Fitted`, which answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from upweight.core.announced_fit import with_forecast
from upweight.core.archive import as_plain, well_formed
from upweight.core.capability_checks import require, with_requirements
from upweight.core.examples import Examples
from upweight.core.fitted import Fitted, ModelT, RecipeT
from upweight.core.library_calls import library_call
from upweight.core.model import Measurable
from upweight.core.promises import Promises
from upweight.core.recipe_settings import settings_of
from upweight.core.saved_fit import FitParts, read_fit
from upweight.core.scores import Unit
from upweight.core.storable import with_store

__all__ = ["Attributor", "Fitted", "ModelT", "Promises", "RecipeT"]


@dataclass(frozen=True, kw_only=True)
class Attributor(ABC):
    """A recipe: a frozen dataclass whose fields are the settings of a method.

    A method is a subclass with a `fit`, and a subclass of `Fitted` with `blocks` and `self_values`. Class variables:

        summary: what the method does, in one line.
        paper: its source.
        cost: time and memory, in one or two lines.
        unit: of its scores. A method of unit EFFECT may return RANK for some settings or models; its scores say so.
        needs: the capabilities that a model must have.
        solves_train: whether `fit` solves a system with the curvature for every training example.
        normalises_gradients: whether gradients are divided by their norms, in double precision.
        answers_from_store: whether `fit(model, train, store=…)` is possible: all that it needs of the training set are
            `loss_rows` and `curvature`.
        variants: settings that the laws try in addition to the defaults: name → settings.
    """

    summary: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    cost: ClassVar[str] = ""
    unit: ClassVar[Unit] = Unit.RANK
    needs: ClassVar[tuple[type, ...]] = (Measurable,)
    solves_train: ClassVar[bool] = False
    normalises_gradients: ClassVar[bool] = False
    answers_from_store: ClassVar[bool] = False
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "fit" in vars(cls):
            cls.fit = library_call(with_store(with_requirements(with_forecast(cls.fit))))  # type: ignore[method-assign]

    @property
    def promises(self) -> Promises:
        """What the method guarantees with these settings. Every method states this; the laws fail without it."""
        return Promises()

    @abstractmethod
    def fit(self, model: Any, train: Examples) -> Fitted[Any, Any]:
        """Do all the work that does not depend on the queries.

        Before a subclass's `fit` runs, `require` checks that the model has the capabilities in `needs` and that `train`
        is an Examples with a positive weight.
        """

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> Fitted[Any, Any]:
        """The fitted method, rebuilt from what `Fitted.state` returned. By default, `fit` runs again."""
        return self.fit(model, train)

    def load(self, path: str | Path, model: Any, train: Examples) -> Fitted[Any, Any]:
        """Read a file that `Fitted.save` wrote.

        Raises:
            ValueError: the recipe, the model (parameters, objective, loss, measurement, training) or the training set
                differs from that of the saved fit, or the file is damaged, or a file of something else.
            TypeError: `model` is an estimator, or `train` is not an Examples.
        """
        require(model, [Measurable], type(self).__name__, train)
        state, facts = read_fit(path, FitParts(self, model, train))
        with well_formed(path):
            return self.restore(model, train, state, facts)

    def described(self) -> dict[str, Any]:
        """Name and settings of the method, as values that JSON can hold."""
        described: dict[str, Any] = as_plain({"method": type(self).__name__, **settings_of(self)})
        return described
