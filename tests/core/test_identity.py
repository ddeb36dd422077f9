"""The identity of values: equal for equal contents in every process, another for every other content."""

from __future__ import annotations

import copy
import functools
import importlib
import os
import runpy
import subprocess
import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from scipy import sparse, special
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import upweight as uw
from upweight.core.contents import UnidentifiedError
from upweight.core.functions import named
from upweight.core.identity import checksum, digest

torch = pytest.importorskip("torch")
F, nn = torch.nn.functional, torch.nn

SCALE = 2.0

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


def typed(value: Any) -> str:
    """What tells two plain values apart: 1, 1.0 and True are equal and not the same."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key!r}:{typed(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(typed, value)) + "]"
    return f"{type(value).__name__}:{value!r}"


@given(PLAIN, PLAIN)
def test_values_have_the_same_digest_exactly_when_they_are_the_same(first: Any, other: Any) -> None:
    assert digest(first) == digest(copy.deepcopy(first))
    assert (digest(first) == digest(other)) == (typed(first) == typed(other))
    assert checksum(first) == checksum(copy.deepcopy(first))


@pytest.mark.parametrize(
    ("first", "other"),
    [
        (["ab", "c"], ["a", "bc"]),
        (["a", "b"], ["a", "b", ""]),
        ([1, "1"], ["1", 1]),
        ([[1], 2], [[1, 2]]),
        (np.zeros(6), np.zeros((2, 3))),
        (np.zeros(2, "f4"), np.zeros(1, "f8")),
        (np.array([0, 1]), np.array([0.0, 1.0])),
        (np.array(["a", None], dtype=object), np.array(["a", "None"], dtype=object)),
        (np.array([0.0]), np.array([-0.0])),
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
        ({1, 2}, {1, 3}),
        (sparse.csr_matrix(np.eye(2)), sparse.csr_matrix((np.ones(2), ([0, 1], [0, 1])), shape=(2, 3))),
        (torch.ones(2), torch.ones(2, dtype=torch.bfloat16)),
        (torch.ones(2), torch.ones(2, requires_grad=True)),
        (pd.DataFrame({"a": [1]}), pd.DataFrame({"b": [1]})),
        (range(3), range(4)),
    ],
)
def test_values_that_look_alike_are_distinguished(first: Any, other: Any) -> None:
    assert digest(first) != digest(other)


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"x", "y", "z"}, {"z", "y", "x"}),
        (np.arange(6.0)[::2], np.array([0.0, 2.0, 4.0])),
        (np.arange(3.0).astype(">f8"), np.arange(3.0)),
        (np.asfortranarray(np.eye(3)[:, :2]), np.eye(3)[:, :2].copy()),
        (np.array(["a", "b"]), np.array(["a", "b"], dtype="<U9")),
        (sparse.csr_matrix(np.eye(3)), sparse.coo_array(np.eye(3))),
        (torch.arange(6.0)[::2], torch.tensor([0.0, 2.0, 4.0])),
        (pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [1, 2]}, index=[7, 8])),
        (Path("a") / "b", Path("a/b")),
    ],
)
def test_the_form_in_which_contents_are_held_does_not_count(first: Any, other: Any) -> None:
    assert digest(first) == digest(other)


def made(factor: float, power: int = 2) -> Any:
    def measure(outputs: Any, labels: Any, *, shift: float = power) -> Any:
        return factor * outputs + shift

    return measure


def test_functions_are_distinguished_by_code_defaults_and_enclosing_variables() -> None:
    assert digest(made(1.0)) == digest(made(1.0))
    assert digest(made(1.0)) != digest(made(3.0)) and digest(made(1.0)) != digest(made(1.0, power=3))
    names = [lambda z, y: z[:, 0], lambda z, y: z[:, 1], lambda z, y: -z[:, 0], lambda z, y, k=1: z[:, 0]]
    assert len({digest(f) for f in names}) == 4


def test_a_function_is_another_when_a_global_that_it_names_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def scaled(outputs: Any, labels: Any) -> Any:
        return [SCALE * value for value in outputs]

    def indirect(outputs: Any, labels: Any) -> Any:
        return scaled(outputs, labels)

    before = digest(scaled), digest(indirect)
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert digest(scaled) != before[0] and digest(indirect) != before[1]


def test_a_global_with_the_name_of_an_attribute_is_none_of_the_functions_business(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def inputs(batch: Any) -> Any:
        return batch.SCALE

    before = digest(inputs)
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert digest(inputs) == before


def test_where_code_stands_and_how_often_it_ran_does_not_count() -> None:
    source = "def f(net, batch):\n    return F.cross_entropy(net(batch.x), batch.y, reduction='none')\n"
    functions = []
    for lines, file in (("", "one.py"), ("\n\n\n", "two.py")):
        space = {"F": F, "__name__": "loop"}
        exec(compile(lines + source, file, "exec"), space)
        functions.append(space["f"])
    assert digest(functions[0]) == digest(functions[1])

    def loop(values: Any) -> float:
        return sum(value * 2.0 for value in values)

    before = digest(loop)
    for _ in range(2000):
        loop([1.0, 2.0])
    assert digest(loop) == before


class Scorer:
    """A callable with settings."""

    weight = 1.0

    def __init__(self, power: int) -> None:
        self.power = power

    def __call__(self, outputs: Any, labels: Any) -> Any:
        return outputs**self.power

    def bound(self, outputs: Any, labels: Any) -> Any:
        return outputs * self.power


def test_callables_with_state_are_distinguished_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert digest(Scorer(2)) == digest(Scorer(2)) != digest(Scorer(3))
    assert digest(Scorer(2).bound) == digest(Scorer(2).bound) != digest(Scorer(3).bound)
    assert digest(functools.partial(made, 2.0)) != digest(functools.partial(made, 3.0))
    before = digest(Scorer(2))
    monkeypatch.setattr(Scorer, "__call__", lambda self, outputs, labels: -outputs)
    assert digest(Scorer(2)) != before


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.slope = 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(self.layer(x), self.slope)


def test_nets_are_distinguished_by_parameters_settings_and_code(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = Net()
    before = digest(net)
    net.eval()
    net(torch.ones(1, 3)).sum().backward()
    assert digest(net) == before  # neither modes nor gradients change an answer
    other = copy.deepcopy(net)
    other.slope = 0.6
    frozen = copy.deepcopy(net)
    frozen.layer.bias.requires_grad_(False)
    moved = copy.deepcopy(net)
    with torch.no_grad():
        moved.layer.weight[0, 0] += 1e-6
    assert len({before, digest(other), digest(frozen), digest(moved)}) == 4
    monkeypatch.setattr(Net, "forward", lambda self, x: self.layer(x))
    assert digest(net) != before


def test_what_two_processes_see_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "see.py"
    script.write_text(
        "import numpy as np, torch\n"
        "from sklearn.feature_extraction.text import TfidfVectorizer\n"
        "from upweight.core.identity import digest\n"
        "K = {'b', 'a', 'c'}\n"
        "def f(z, y): return z if y in {'p', 'q', 'r'} else K\n"
        "torch.manual_seed(0)\n"
        "texts = TfidfVectorizer(stop_words=['of']).fit(['a text of words', 'other words'])\n"
        "print(digest(f, K, {'x': 1}, np.tanh, torch.sigmoid, torch.nn.Linear(2, 2), texts))\n"
    )
    runpy.run_path(str(script), run_name="__main__")
    another = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert capsys.readouterr().out == another.stdout != ""


def test_a_fitted_pipeline_is_distinguished_by_what_it_learned() -> None:
    texts, labels = ["good film", "bad film", "good plot", "bad plot"], [1, 0, 1, 0]

    def fitted(c: float) -> Any:
        return make_pipeline(TfidfVectorizer(), LogisticRegression(C=c)).fit(texts, labels)

    assert digest(fitted(1.0)) == digest(fitted(1.0)) != digest(fitted(2.0))


@dataclass(frozen=True)
class Recipe:
    width: float = 1.0
    folder: str = field(default="", compare=False)


def test_settings_that_are_not_compared_do_not_count() -> None:
    assert digest(Recipe(folder="a")) == digest(Recipe(folder="b")) != digest(Recipe(2.0))


def test_a_setting_that_came_later_does_not_count_while_it_changes_nothing() -> None:
    assert digest(uw.EKFAC()) == "ace6b3b83fffbb4715ae841889d3219e"  # before `eigenvalue_examples` was a setting
    assert digest(uw.EKFAC(eigenvalue_examples=5)) != digest(uw.EKFAC(eigenvalue_examples=6)) != digest(uw.EKFAC())


def test_circles_end() -> None:
    ring: list[Any] = [1]
    ring.append(ring)
    other: list[Any] = [2]
    other.append(other)
    assert digest(ring) != digest(other)


CLOSED = {"generator": (i for i in range(3)), "lock": threading.Lock(), "stream": sys.stdout}


@pytest.mark.parametrize("kind", CLOSED)
def test_what_has_no_contents_is_refused_with_a_way_out(kind: str) -> None:
    value = CLOSED[kind]

    def measure(outputs: Any, labels: Any) -> Any:
        return value, outputs

    with pytest.raises(UnidentifiedError, match=r'no contents by which.*uw\.named\("name", function\)'):
        digest(measure)
    assert digest(named("mine", measure)) == digest(named("mine", abs)) != digest(named("other", measure))


def test_a_named_function_is_the_function() -> None:
    double = named("double", lambda z, y=0: 2 * z + y)
    assert double(3) == 6 and double(3, y=1) == 7 and double.__name__ == "double"
    with pytest.raises(ValueError, match="expected a name"):
        named("", abs)
    with pytest.raises(TypeError, match="expected a function"):
        named("x", 3)  # type: ignore[arg-type]


def changed_array(x: Any) -> None:
    x[1, 0] = np.nextafter(x[1, 0], 9)


def swapped_rows(x: Any) -> None:
    x[[0, 1]] = x[[1, 0]]


def flipped_signs(x: Any) -> None:
    x *= -1


DATA = np.arange(1.0, 13.0).reshape(4, 3)
FORMS: dict[str, tuple[Any, Any]] = {
    "one number": (DATA.copy, changed_array),
    "two rows": (DATA.copy, swapped_rows),
    "all signs": (DATA.copy, flipped_signs),
    "one hot": (lambda: np.eye(4), swapped_rows),
    "sparse": (lambda: sparse.csr_matrix(DATA), lambda x: x.data.__setitem__(0, 7.0)),
    "texts": (lambda: ["a", "b", "c", "d"], lambda x: x.__setitem__(2, "z")),
    "frame": (lambda: pd.DataFrame(DATA.copy()), lambda x: x.iloc.__setitem__((0, 0), 9.0)),
    "frame of texts": (lambda: pd.DataFrame({"a": list("abcd")}), lambda x: x.iloc.__setitem__((0, 0), "z")),
    "tensor": (lambda: torch.tensor(DATA), lambda x: x[0].mul_(2.0)),
    "dicts of tensors": (lambda: [{"v": torch.ones(1200)} for _ in range(4)], lambda x: x[1]["v"][600].zero_()),
    "ragged lists": (lambda: [[1, 2], [3], [4], [5, 6]], lambda x: x[0].append(3)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("through", ["handed in", "handed out"])
def test_a_change_in_place_is_noticed(form: str, through: str) -> None:
    make, change = FORMS[form]
    x = make()
    examples = uw.Examples(x)
    before = examples.checksum(), examples.digest()
    assert (examples.checksum(), examples.digest()) == before
    change(x if through == "handed in" else examples.x)
    assert examples.checksum() != before[0] and examples.digest() != before[1]


def test_frames_of_polars_have_contents_too() -> None:
    first, other = pl.DataFrame({"a": [1, 2], "b": ["x", "y"]}), pl.DataFrame({"a": [1, 2], "b": ["x", "z"]})
    assert digest(first) == digest(first.clone()) != digest(other)


def test_lambdas_of_a_library_are_distinguished_by_their_code():
    def of(function):
        function.__module__ = "numpy"
        return function

    first, second, third = of(lambda x: x), of(lambda x: 2 * x), of(lambda x: x)
    assert first.__qualname__ == second.__qualname__
    assert digest(first) == digest(third) != digest(second)


class Shifted(str):
    """A text of the user's own with something beside it."""

    by = 0.0


class Cached:
    @functools.cached_property
    def table(self) -> Any:
        return np.ones(2)

    def __call__(self, outputs: Any) -> Any:
        return outputs @ self.table


class Divided(nn.Module):
    """A net with a private setting that leaves something behind in a forward pass."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.inside = nn.Linear(2, 2)
        nn.init.ones_(self.inside.weight)
        nn.init.zeros_(self.inside.bias)
        self._temperature = temperature

    def forward(self, x: Any) -> Any:
        self.hidden = self.inside(x)
        return self.hidden / self._temperature


def text_with(shift: float) -> Shifted:
    text = Shifted("a")
    text.by = shift
    return text


def hooked(factor: float) -> nn.Module:
    net = nn.Identity()
    net.register_forward_hook(lambda module, given, outputs: factor * outputs)
    return net


def cached_function(factor: float) -> Any:
    return functools.lru_cache(made(factor))


def with_attribute(k: int) -> Any:
    def measure(outputs: Any) -> Any:
        return outputs[:, measure.k]  # type: ignore[attr-defined]

    measure.k = k  # type: ignore[attr-defined]
    return measure


@pytest.mark.parametrize(
    ("first", "other"),
    [
        (Divided(1.0), Divided(5.0)),
        (nn.Sequential(nn.ReLU(), nn.Tanh()), nn.Sequential(nn.Tanh(), nn.ReLU())),
        (nn.ModuleDict({"a": nn.ReLU(), "b": nn.Tanh()}), nn.ModuleDict({"b": nn.Tanh(), "a": nn.ReLU()})),
        (hooked(1.0), hooked(2.0)),
        (cached_function(1.0), cached_function(2.0)),
        (with_attribute(0), with_attribute(1)),
        (text_with(1.0), text_with(2.0)),
        (Shifted("a"), "a"),
        (OrderedDict(a=1, b=2), OrderedDict(b=2, a=1)),
        (
            pd.DataFrame({"a": pd.Categorical(["x"], ["x", "y"])}),
            pd.DataFrame({"a": pd.Categorical(["x"], ["y", "x"])}),
        ),
        (pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": pd.Categorical([1, 2])})),
        (pd.DataFrame({"a": pd.to_datetime(["2020-01-01"])}), pd.DataFrame({"a": ["2020-01-01"]})),
        (pl.DataFrame({"a": [1.0, None]}), pl.DataFrame({"a": [1.0, float("nan")]})),
        (lambda a, b: a, lambda b, a: b),
        (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[0, 0])),
    ],
)
def test_what_changes_results_without_showing_itself_is_distinguished(first: Any, other: Any) -> None:
    assert digest(first) == digest(copy.deepcopy(first)) != digest(other)


@pytest.mark.parametrize("make", [lambda: Divided(1.0), Cached], ids=["net", "cached property"])
def test_what_use_leaves_behind_does_not_count(make: Any) -> None:
    used = make()
    used(torch.ones(1, 2) if isinstance(used, nn.Module) else np.ones(2))
    assert digest(used) == digest(make())


def test_threads_printing_and_caches_of_libraries_do_not_count(tmp_path: Path) -> None:
    plain, loud = LogisticRegression(), LogisticRegression(n_jobs=2, verbose=1)
    assert digest(plain) == digest(loud) != digest(LogisticRegression(C=2.0))
    cached_pipeline = make_pipeline(LogisticRegression(), memory=str(tmp_path))
    assert digest(cached_pipeline) == digest(make_pipeline(LogisticRegression()))


def test_modules_imported_inside_a_function_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)

    def measure(outputs: Any) -> Any:
        import shift_of_outputs  # type: ignore[import-not-found]

        return outputs + shift_of_outputs.SHIFT

    reports = []
    for shift in (1, 20):
        (tmp_path / "shift_of_outputs.py").write_text(f"SHIFT = {shift}\n")
        sys.modules.pop("shift_of_outputs", None)
        importlib.invalidate_caches()
        reports.append(digest(measure))
    sys.modules.pop("shift_of_outputs", None)
    assert reports[0] != reports[1]


def test_names_of_ufuncs_are_found_where_they_are() -> None:
    assert digest(special.expit) != digest(special.logit)
    with pytest.raises(UnidentifiedError, match="nothing of its name"):
        digest(np.frompyfunc(lambda x: x, 1, 1))


def test_nesting_without_end_is_refused() -> None:
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    with pytest.raises(UnidentifiedError, match="nested too deeply"):
        digest(nested)


def test_the_part_of_a_model_without_contents_is_named() -> None:
    lock = threading.Lock()

    def held(outputs: Any, labels: Any) -> Any:
        with lock:
            return outputs[:, 0]

    x = np.eye(2)
    train = uw.Examples(x, [0, 1])
    model = uw.explainable(LogisticRegression(tol=1e-9).fit(x, [0, 1]), train, held)
    with pytest.raises(UnidentifiedError, match="of the model's measurement: "):
        model.identity()
