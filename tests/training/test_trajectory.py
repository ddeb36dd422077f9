"""Trajectory: two lines in a loop, what they leave on disk, and what is refused."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import upweight as uw
from upweight.training.trajectory import MANIFEST

X = np.random.default_rng(0).normal(size=(20, 3))
Y = np.arange(20) % 2


def losses(net, batch):
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def fresh(width=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2)).double()


def sgd(net, **settings):
    return torch.optim.SGD(net.parameters(), **{"lr": 0.1, "momentum": 0.9, **settings})


def steps(net, optimiser, trajectory, count, rate=lambda t: 0.1, start=0):
    for t in range(start, start + count):
        optimiser.param_groups[0]["lr"] = rate(t)
        optimiser.zero_grad()
        F.cross_entropy(net(torch.as_tensor(X)), torch.as_tensor(Y)).backward()
        optimiser.step()
        trajectory.record(net, optimiser)
    return net


def modelled(net, folder):
    return uw.TorchModel(net, losses, trajectory=uw.Trajectory(folder))


def test_rates_are_shared_out_to_the_nearest_checkpoints(tmp_path):
    net = fresh()
    optimiser, trajectory = sgd(net), uw.Trajectory(tmp_path / "run", every=4)
    trajectory.save(net, optimiser)
    steps(net, optimiser, trajectory, 10, rate=lambda t: 2.0**-t)
    trajectory.save(net, optimiser)
    trajectory.save(net, optimiser)  # twice is once
    rates = 2.0 ** -np.arange(10)
    found = modelled(net, tmp_path / "run").checkpoints()
    assert [c.step for c in found] == [0, 4, 8, 10]
    expected = [rates[:2].sum(), rates[2:6].sum(), rates[6:9].sum(), rates[9:].sum()]
    assert np.allclose([c.travelled for c in found], np.array(expected) / (1 - 0.9))


def test_checkpoints_are_the_net_as_it_was(tmp_path):
    net = fresh()
    optimiser, trajectory = sgd(net), uw.Trajectory(tmp_path, every=3)
    seen = []
    for _ in range(2):
        steps(net, optimiser, trajectory, 3)
        seen.append({name: t.clone() for name, t in net.state_dict().items()})
    for checkpoint, expected in zip(modelled(net, tmp_path).checkpoints(), seen, strict=True):
        there = checkpoint.model().network.net.state_dict()
        assert all(torch.equal(there[name], t) for name, t in expected.items())


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
def test_an_interrupted_loop_continues_bit_for_bit(tmp_path, kind):
    def begin(folder):
        net = fresh()
        optimiser = sgd(net) if kind == "SGD" else torch.optim.AdamW(net.parameters(), lr=0.1)
        return net, optimiser, uw.Trajectory(tmp_path / folder, every=2)

    whole = begin("whole")
    steps(*whole, 8)
    steps(*begin("parts"), 5)  # step 5 is lost with the process
    net, optimiser, trajectory = begin("parts")
    with pytest.raises(ValueError, match="already holds a run of 4 steps: call"):
        trajectory.record(net, optimiser)
    assert trajectory.resume(net, optimiser) == 4
    steps(net, optimiser, trajectory, 4, start=4)
    assert all(
        torch.equal(a, b) for a, b in zip(net.state_dict().values(), whole[0].state_dict().values(), strict=True)
    )
    ours, theirs = (modelled(n, tmp_path / f).checkpoints() for n, f in ((net, "parts"), (whole[0], "whole")))
    assert [(c.step, c.travelled, c.identity) for c in ours] == [(c.step, c.travelled, c.identity) for c in theirs]


@pytest.fixture
def run(tmp_path):
    net = fresh()
    optimiser, trajectory = sgd(net), uw.Trajectory(tmp_path, every=2)
    steps(net, optimiser, trajectory, 6)
    return net, tmp_path


def test_another_net_is_refused(run):
    net, folder = run
    wide, other = fresh(5), nn.Sequential(nn.Linear(3, 2)).double()
    with pytest.raises(ValueError, match=r"does not belong to this net: expected '0.weight' of shape \(5, 3\)"):
        modelled(wide, folder)
    with pytest.raises(ValueError, match="does not belong to this net: it has tensors the net lacks"):
        modelled(other, folder)
    with pytest.raises(ValueError, match="float32"):
        modelled(fresh().float(), folder)
    with torch.no_grad():
        net[0].weight[0, 0] += 1.0
    with pytest.raises(ValueError, match=r"step 6 .* is not the net handed in: '0.weight' differs"):
        modelled(net, folder)


def test_holes_and_damage_are_refused_before_anything_is_computed(run):
    net, folder = run
    middle = folder / "step-000000004.safetensors"
    data = middle.read_bytes()
    middle.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"step 4 .* is damaged"):
        modelled(net, folder)
    middle.unlink()
    with pytest.raises(ValueError, match="step 4 is missing"):
        modelled(net, folder)


def test_a_damaged_manifest_is_refused(run):
    _, folder = run
    path = folder / MANIFEST
    content = json.loads(path.read_text())
    del content["content"]["shards"][1]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="checksum"):
        uw.Trajectory(folder)
    path.write_text("{")
    with pytest.raises(ValueError, match="damaged or was not written by upweight"):
        uw.Trajectory(folder)


def test_a_manifest_without_a_step_is_noticed(run):
    import zlib

    from upweight.training.trajectory import _plain

    net, folder = run
    found = json.loads((folder / MANIFEST).read_text())["content"]
    del found["shards"][1]  # with a checksum that fits
    (folder / MANIFEST).write_text(json.dumps({"content": found, "crc32": zlib.crc32(_plain(found))}))
    with pytest.raises(ValueError, match="expected the 4 learning rates of steps 3 to 6"):
        modelled(net, folder).checkpoints()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda net: torch.optim.RMSprop(net.parameters()), "RMSprop is not supported"),
        (lambda net: torch.optim.Adam(net.parameters(), amsgrad=True), "amsgrad=True"),
        (lambda net: torch.optim.SGD(net.parameters(), lr=0.1, maximize=True), "maximize=True"),
        (lambda net: "sgd", "expected the torch optimiser of the loop, got str"),
        (lambda net: torch.optim.SGD(fresh().parameters(), lr=0.1), "not the net's"),
        (
            lambda net: torch.optim.SGD([{"params": net[0].weight, "lr": 1.0}, {"params": net[0].bias, "lr": 2.0}]),
            "one learning rate for all parameter groups",
        ),
    ],
)
def test_optimisers_of_unknown_steps_are_refused_at_the_first(tmp_path, make, message):
    net = fresh()
    with pytest.raises((TypeError, ValueError), match=message):
        uw.Trajectory(tmp_path).record(net, make(net))


def test_changed_momentum_is_refused(tmp_path):
    net = fresh()
    optimiser, trajectory = sgd(net), uw.Trajectory(tmp_path)
    steps(net, optimiser, trajectory, 2)
    optimiser.param_groups[0]["momentum"] = 0.5
    with pytest.raises(ValueError, match="changes of momentum"):
        trajectory.record(net, optimiser)


def test_a_model_without_checkpoints_says_how_to_get_them(tmp_path):
    train = uw.Examples(X, Y)
    with pytest.raises(TypeError, match="record them in the training loop"):
        uw.TracIn().fit(uw.TorchModel(fresh(), losses), train)
    with pytest.raises(ValueError, match="holds no checkpoints"):
        modelled(fresh(), tmp_path)
    with pytest.raises(ValueError, match="every=0"):
        uw.Trajectory(tmp_path, every=0)
