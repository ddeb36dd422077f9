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
import sys

__version__ = "0.2.0"


def _modules(file: str = "__init__.pyi") -> dict[str, str]:
    """Public name → the module it is imported from on first use, as `__init__.pyi` and what it imports `*` from list.

    So `upweight --help` and a script that only loads scores need no scipy and no scikit-learn.
    """
    text = __spec__.loader.get_data(f"{__path__[0]}/{file}").decode()  # out of a zip archive too
    modules = {}
    for _, module, _, name, *_ in (line.split() for line in text.splitlines() if line.startswith("from ")):
        if name == "*":
            modules |= _modules(module.removeprefix("upweight.").replace(".", "/") + ".py")
        else:
            modules[name] = module
    return modules


# deprecated name → current one
_RENAMED = {"Found": "Detection", "Moved": "NewtonSteps", "found_at": "detection_rates"}
# what a public name may need → the extra that installs it
_EXTRAS = {"torch": "torch", "safetensors": "torch", "transformers": "transformers", "datasets": "transformers"}
_MODULES = _modules()
__all__ = list(_MODULES)


def __getattr__(name: str) -> object:
    if name in _RENAMED:
        import warnings

        warnings.warn(f"uw.{name} is deprecated; write uw.{_RENAMED[name]}", DeprecationWarning, stacklevel=2)
        return getattr(sys.modules[__name__], _RENAMED[name])
    if name not in _MODULES:
        raise AttributeError(f"module 'upweight' has no attribute {name!r}")
    try:
        module = importlib.import_module(_MODULES[name])
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(str(error.name).partition(".")[0])
        if extra is None:
            raise
        raise ModuleNotFoundError(
            f"uw.{name} needs {error.name}, which is not installed; run pip install 'upweight[{extra}]'",
            name=error.name,
        ) from error
    value = globals()[name] = getattr(module, name, None) or importlib.import_module(f"{_MODULES[name]}.{name}")
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
