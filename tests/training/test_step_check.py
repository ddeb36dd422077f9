"""SOURCE by steps names what a recorded training did that it does not replay, and warns of no other training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import upweight as uw
from upweight.methods.source import FittedSteps
from upweight.training.checkpoint_file import EVIDENCE
from upweight.training.trajectory import Trajectory

N = 24
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(N, 5)), RNG.integers(0, 3, N)
QUERIES = uw.Examples(RNG.normal(size=(3, 5)), [0, 1, 2])
BATCHES = [b for _ in range(4) for b in np.array_split(RNG.permutation(N), 3)]
OPTIMISERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 0.02, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, 0.02, weight_decay=0.1),
}


def loss(net: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def plain_net() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 40), nn.GELU(), nn.Linear(40, 3))


def mean_loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(net(x), y)


def nothing(*_: Any) -> None:
    pass


def record_training(
    folder: Any,
    *,
    make: Callable[[], nn.Module] = plain_net,
    optimiser: Callable[[nn.Module], Any] = lambda net: OPTIMISERS["sgd"](net.parameters()),
    every: int = 1,
    dtype: torch.dtype = torch.float64,
    batch_loss: Callable[[nn.Module, Tensor, Tensor], Tensor] = mean_loss,
    before_step: Callable[[nn.Module], object] = nothing,
    after_step: Callable[[Any, nn.Module], object] = nothing,
    ids: Any = None,
) -> nn.Module:
    """Train and record a net in a user's loop; the net in eval mode."""
    torch.manual_seed(0)
    net = make().to(dtype).train()
    rule, trajectory = optimiser(net), Trajectory(folder, every=every)
    trajectory.save(net, rule)
    x, y = torch.tensor(X, dtype=dtype), torch.tensor(Y)
    for batch in BATCHES:
        rule.zero_grad()
        batch_loss(net, x[batch], y[batch]).backward()
        before_step(net)
        rule.step()
        after_step(rule, net)
        trajectory.record(net, rule, batch=batch if ids is None else ids[batch])
    trajectory.save(net, rule)
    return net.eval()


def fit(net: nn.Module, folder: Any, train: uw.Examples | None = None) -> Any:
    dtype = next(net.parameters()).dtype
    if train is None:
        train = uw.Examples(X.astype(np.float32 if dtype == torch.float32 else np.float64), Y)
    fitted = uw.SOURCE().fit(uw.TorchModel(net, loss, trajectory=Trajectory(folder)), train)
    assert isinstance(fitted, FittedSteps)
    return fitted


def warnings_of(net: nn.Module, folder: Any) -> str:
    facts = fit(net, folder).diagnostics
    assert facts["checked_steps"] > 0
    return " ".join(facts["warnings"])


@pytest.mark.sweep(3)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("kind", OPTIMISERS)
def test_a_training_on_the_examples_own_gradients_has_no_warning(
    tmp_path: Any, kind: str, every: int, dtype: torch.dtype
) -> None:
    net = record_training(tmp_path, optimiser=lambda net: OPTIMISERS[kind](net.parameters()), every=every, dtype=dtype)
    assert warnings_of(net, tmp_path) == ""


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_gradients_that_the_loop_has_reset_before_it_records_are_no_contradiction(tmp_path: Any, kind: str) -> None:
    net = record_training(
        tmp_path,
        optimiser=lambda net: OPTIMISERS[kind](net.parameters()),
        after_step=lambda rule, _: rule.zero_grad(set_to_none=False),
        every=3,
    )
    assert warnings_of(net, tmp_path) == ""


class WithUnusedLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(5, 3), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.used(x)
        return out


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_parameters_that_no_loss_uses_are_no_contradiction(tmp_path: Any, kind: str) -> None:
    net = record_training(tmp_path, make=WithUnusedLayer, optimiser=lambda net: OPTIMISERS[kind](net.parameters()))
    assert warnings_of(net, tmp_path) == ""


def test_batch_norm_and_dropout_are_contradictions_in_training_mode_only(tmp_path: Any) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(), nn.Linear(8, 3))

    net = record_training(tmp_path, make=make, batch_loss=lambda net, x, y: mean_loss(net.eval(), x, y))
    assert warnings_of(net, tmp_path) == ""


OTHER_TRAININGS: dict[str, tuple[dict[str, Any], str]] = {
    "batch norm in an unknown mode": (
        {
            "make": lambda: nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 3)),
            "batch_loss": lambda net, x, y: mean_loss(net.train(), x, y),
            "after_step": lambda _, net: net.eval(),
        },
        "batch norm '1' uses batch statistics",
    ),
    "dropout": (
        {"make": lambda: nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Dropout(0.1), nn.Linear(8, 3))},
        "random numbers (dropout '2')",
    ),
    "clipping": (
        {"before_step": lambda net: nn.utils.clip_grad_norm_(net.parameters(), 0.2)},
        "gradients were clipped",
    ),
    "clipping by value": (
        {"before_step": lambda net: nn.utils.clip_grad_value_(net.parameters(), 0.01)},
        "clipping by value",
    ),
    "noise": ({"batch_loss": lambda net, x, y: mean_loss(net, x + 0.1 * torch.randn_like(x), y)}, "augmented inputs"),
    "another loss": (
        {"batch_loss": lambda net, x, y: F.cross_entropy(net(x), y, label_smoothing=0.1)},
        "another loss",
    ),
    "a sum": ({"batch_loss": lambda net, x, y: 8 * mean_loss(net, x, y)}, "It is 8 times the replayed one"),
}


@pytest.mark.sweep(3)
@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("kind", OPTIMISERS)
@pytest.mark.parametrize(("settings", "message"), OTHER_TRAININGS.values(), ids=OTHER_TRAININGS)
def test_what_the_replay_does_not_do_is_named(
    tmp_path: Any, settings: dict[str, Any], message: str, kind: str, every: int
) -> None:
    net = record_training(tmp_path, every=every, optimiser=lambda net: OPTIMISERS[kind](net.parameters()), **settings)
    text = warnings_of(net, tmp_path)
    assert message in text
    assert "not the one that SOURCE replays" in text


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_another_learning_rate_than_the_recorded_one_is_reported(tmp_path: Any, kind: str) -> None:
    def halve(rule: Any, _: nn.Module) -> None:
        rule.param_groups[0]["lr"] *= 0.5

    net = record_training(tmp_path, optimiser=lambda net: OPTIMISERS[kind](net.parameters()), after_step=halve)
    assert "a scheduler's step before trajectory.record" in warnings_of(net, tmp_path)


def test_parameters_that_the_loop_changes_besides_the_optimiser_are_reported(tmp_path: Any) -> None:
    @torch.no_grad()
    def shrink(_: Any, net: nn.Module) -> None:
        for parameter in net.parameters():
            parameter.mul_(0.9)

    net = record_training(tmp_path, after_step=shrink)
    assert "changed besides the optimiser" in warnings_of(net, tmp_path)


def test_positions_recorded_in_place_of_ids_are_refused(tmp_path: Any) -> None:
    ids = np.random.default_rng(5).permutation(N)
    train = uw.Examples(X, Y, ids=ids)
    net = record_training(tmp_path / "positions")
    with pytest.raises(ValueError, match="got their positions in the training set"):
        fit(net, tmp_path / "positions", train)
    net = record_training(tmp_path / "ids", ids=ids)
    assert fit(net, tmp_path / "ids", train).diagnostics["warnings"] == []


def test_batches_of_other_examples_are_reported(tmp_path: Any) -> None:
    net = record_training(tmp_path)
    shuffled = uw.Examples(X, Y).take(np.random.default_rng(1).permutation(N))
    train = uw.Examples(shuffled.x, shuffled.y)
    assert "recorded for other examples" in " ".join(fit(net, tmp_path, train).diagnostics["warnings"])


def test_steps_of_a_trajectory_without_evidence_are_checked_by_its_checkpoints(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upweight.training.trajectory.step_evidence", lambda *_: {})
    clip = OTHER_TRAININGS["clipping"][0]
    for every, checked in ((1, 12), (5, 0)):
        net = record_training(tmp_path / f"clipped {every}", every=every, **clip)
        facts = fit(net, tmp_path / f"clipped {every}").diagnostics
        assert facts["checked_steps"] == checked
        assert bool(facts["warnings"]) == (checked > 0)
        assert (
            fit(record_training(tmp_path / f"plain {every}", every=every), tmp_path / f"plain {every}").diagnostics[
                "warnings"
            ]
            == []
        )


def test_evidence_is_recorded_for_the_step_after_a_checkpoint_only_with_batches(tmp_path: Any) -> None:
    net = record_training(tmp_path, every=4)
    tensors = Trajectory(tmp_path).read(1)
    assert {name.removeprefix(EVIDENCE).split(".")[0] for name in tensors if name.startswith(EVIDENCE)} == {
        "parameters",
        "gradients",
    }
    assert max(t.numel() for name, t in tensors.items() if name.startswith(EVIDENCE)) <= 32
    assert not any(name.startswith(EVIDENCE) for name in Trajectory(tmp_path).read(0))
    assert len(list(net.parameters())) == 4


def grouped(net: nn.Module, kind: str) -> Any:
    matrices = [p for p in net.parameters() if p.ndim > 1]
    rest = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": matrices}, {"params": rest, "weight_decay": 0.0}]
    if kind == "sgd":
        return torch.optim.SGD(groups, 0.1, momentum=0.5, weight_decay=1.0)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind](groups, 0.02, weight_decay=2.0)


def weighted(net: nn.Module, kind: str, weights: Tensor) -> np.ndarray:
    """−loss of the queries after the same training with these example weights."""
    rule, x, y = grouped(net, kind), torch.tensor(X), torch.tensor(Y)
    for batch in BATCHES:
        rule.zero_grad()
        (F.cross_entropy(net(x[batch]), y[batch], reduction="none") * weights[batch]).mean().backward()
        rule.step()
    return -F.cross_entropy(net(torch.tensor(QUERIES.x)), torch.tensor(QUERIES.y), reduction="none").detach().numpy()


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_weight_decay_by_parameter_group_is_followed(tmp_path: Any, kind: str) -> None:
    net = record_training(tmp_path, optimiser=lambda net: grouped(net, kind))
    fitted = fit(net, tmp_path)
    assert fitted.diagnostics["warnings"] == []
    scores = fitted.attribute(QUERIES).values

    def shifted(by: float) -> np.ndarray:
        torch.manual_seed(0)
        return weighted(plain_net().double(), kind, 1.0 + by * F.one_hot(torch.tensor(4), N).double())

    slopes = (shifted(1e-5) - shifted(-1e-5)) / 2e-5
    assert np.allclose(scores[:, 4], slopes, rtol=1e-4, atol=1e-5 * np.abs(slopes).max())


def test_parameters_that_the_optimiser_never_held_are_fixed(tmp_path: Any) -> None:
    def last(net: nn.Module) -> Any:
        return torch.optim.SGD(net[-1].parameters(), 0.1)  # type: ignore[index]

    net = record_training(tmp_path, optimiser=last)
    train = uw.Examples(X, Y)

    def scores_and_warnings(method: Any) -> tuple[np.ndarray, list[str]]:
        scores = method.fit(uw.TorchModel(net, loss, trajectory=Trajectory(tmp_path)), train).attribute(QUERIES)
        return scores.values, scores.diagnostics["warnings"]

    methods = [uw.SOURCE(), uw.SOURCE(segments=2), uw.TracIn(), uw.GAS()]
    answers = [scores_and_warnings(method) for method in methods]
    net[0].requires_grad_(False)  # type: ignore[index]
    for method, (values, warnings) in zip(methods, answers, strict=True):
        assert np.allclose(values, scores_and_warnings(method)[0], rtol=1e-9, atol=1e-12)
        assert any("never held" in warning for warning in warnings)
    for parameter in net.parameters():
        parameter.requires_grad_(not parameter.requires_grad)
    with pytest.raises(ValueError, match="whose trained parameters are all frozen"):
        fit(net, tmp_path)
