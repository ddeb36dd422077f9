"""Recording a trajectory in a training loop, what it writes to disk, and what it refuses."""

import json
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import upweight as uw
from upweight.training.checkpoint_file import write_checkpoint
from upweight.training.trajectory_manifest import MANIFEST, encode

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


def model_of(net, folder):
    return uw.TorchModel(net, losses, trajectory=uw.Trajectory(folder))


def test_each_learning_rate_counts_for_the_nearest_checkpoint(tmp_path):
    net = fresh()
    optimiser, trajectory = sgd(net), uw.Trajectory(tmp_path / "run", every=4)
    trajectory.save(net, optimiser)
    steps(net, optimiser, trajectory, 10, rate=lambda t: 2.0**-t)
    trajectory.save(net, optimiser)
    trajectory.save(net, optimiser)  # a second call saves nothing
    rates = 2.0 ** -np.arange(10)
    checkpoints = model_of(net, tmp_path / "run").checkpoints()
    assert [c.step for c in checkpoints] == [0, 4, 8, 10]
    expected = [rates[:2].sum(), rates[2:6].sum(), rates[6:9].sum(), rates[9:].sum()]
    assert np.allclose([c.learning_rate_sum for c in checkpoints], np.array(expected) / (1 - 0.9))


def test_a_checkpoint_is_the_net_at_its_step(tmp_path):
    net = fresh()
    optimiser, trajectory = sgd(net), uw.Trajectory(tmp_path, every=3)
    states = []
    for _ in range(2):
        steps(net, optimiser, trajectory, 3)
        states.append({name: t.clone() for name, t in net.state_dict().items()})
    for checkpoint, expected in zip(model_of(net, tmp_path).checkpoints(), states, strict=True):
        state = checkpoint.model().network.net.state_dict()
        assert all(torch.equal(state[name], t) for name, t in expected.items())


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
    continued, uninterrupted = (
        model_of(n, tmp_path / f).checkpoints() for n, f in ((net, "parts"), (whole[0], "whole"))
    )
    assert [(c.step, c.learning_rate_sum, c.identity) for c in continued] == [
        (c.step, c.learning_rate_sum, c.identity) for c in uninterrupted
    ]


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
        model_of(wide, folder)
    with pytest.raises(ValueError, match="does not belong to this net: it has tensors that the net lacks"):
        model_of(other, folder)
    with pytest.raises(ValueError, match="float32"):
        model_of(fresh().float(), folder)
    with torch.no_grad():
        net[0].weight[0, 0] += 1.0
    with pytest.raises(ValueError, match=r"step 6 .* is not the net that was passed: '0.weight' differs"):
        model_of(net, folder)


def test_missing_and_damaged_checkpoints_are_refused_before_anything_is_computed(run):
    net, folder = run
    middle = folder / "step-000000004.safetensors"
    data = middle.read_bytes()
    middle.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"step 4 .* is damaged"):
        model_of(net, folder)
    middle.unlink()
    with pytest.raises(ValueError, match="step 4 is missing"):
        model_of(net, folder)


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


def test_a_manifest_that_lacks_a_checkpoint_is_refused(run):
    net, folder = run
    content = json.loads((folder / MANIFEST).read_text())["content"]
    del content["shards"][1]
    (folder / MANIFEST).write_text(json.dumps({"content": content, "crc32": zlib.crc32(encode(content))}))
    with pytest.raises(ValueError, match="expected the 4 learning rates of steps 3 to 6"):
        model_of(net, folder).checkpoints()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda net: torch.optim.Adagrad(net.parameters()), "Adagrad is not supported.*uw.UpdateRule"),
        (lambda net: torch.optim.Adam(net.parameters(), amsgrad=True), "amsgrad=True"),
        (lambda net: torch.optim.RMSprop(net.parameters(), momentum=1.0), r"momentum in \[0, 1\), got 1.0"),
        (lambda net: torch.optim.SGD(net.parameters(), lr=0.1, maximize=True), "maximize=True"),
        (lambda net: "sgd", "expected the torch optimiser of the loop, got str"),
        (lambda net: torch.optim.SGD(fresh().parameters(), lr=0.1), "not the net's"),
        (lambda net: torch.optim.SGD([{"params": net[0].weight, "lr": float("nan")}]), "finite learning rate"),
    ],
)
def test_unsupported_optimisers_are_refused_at_the_first_step(tmp_path, make, message):
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


def test_a_model_without_checkpoints_says_how_to_record_them(tmp_path):
    train = uw.Examples(X, Y)
    with pytest.raises(TypeError, match="record them in the training loop"):
        uw.TracIn().fit(uw.TorchModel(fresh(), losses), train)
    with pytest.raises(ValueError, match="holds no checkpoints"):
        model_of(fresh(), tmp_path)
    with pytest.raises(ValueError, match="every=0"):
        uw.Trajectory(tmp_path, every=0)


def test_a_trajectory_without_checkpoints_is_true(tmp_path):
    trajectory = uw.Trajectory(tmp_path)
    assert len(trajectory) == 0
    assert trajectory


class Wrapped:
    """An optimiser as accelerate wraps it."""

    def __init__(self, optimizer):
        self.optimizer, self.param_groups, self.state = optimizer, optimizer.param_groups, optimizer.state


class WrappedSubclass(torch.optim.Optimizer):
    """A wrapper that is a torch optimiser itself, as accelerate's is."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    param_groups = property(lambda self: self.optimizer.param_groups)
    state = property(lambda self: self.optimizer.state)


@pytest.mark.parametrize("wrap", [Wrapped, WrappedSubclass, lambda inside: Wrapped(Wrapped(inside))])
def test_a_wrapped_optimiser_is_recorded_as_the_one_inside(tmp_path, wrap):
    checkpoints = []
    for folder, wrapper in (("plain", lambda inside: inside), ("wrapped", wrap)):
        net = fresh()
        optimiser, trajectory = sgd(net), uw.Trajectory(tmp_path / folder, every=2)
        trajectory.save(net, wrapper(optimiser))
        for batch in ([0, 1, 2], [3, 4, 5], [6, 7], [8, 9]):
            optimiser.zero_grad()
            F.cross_entropy(net(torch.as_tensor(X[batch])), torch.as_tensor(Y[batch])).backward()
            optimiser.step()
            trajectory.record(net, wrapper(optimiser), batch=batch)
        checkpoints.append([c.identity for c in model_of(net, tmp_path / folder).checkpoints()])
        restored = fresh()
        assert uw.Trajectory(tmp_path / folder).resume(restored, wrapper(sgd(restored))) == 4
        assert torch.equal(restored[0].weight, net[0].weight)
    assert checkpoints[0] == checkpoints[1]


def test_parameters_may_be_added_to_the_optimiser_during_the_training(tmp_path):
    net = fresh()
    optimiser = torch.optim.SGD(net[2].parameters(), lr=0.1, weight_decay=0.1)
    trajectory = uw.Trajectory(tmp_path)
    trajectory.save(net, optimiser)
    assert trajectory.trained == {"2.weight", "2.bias"}
    optimiser.add_param_group({"params": list(net[0].parameters()), "weight_decay": 0.0})
    trajectory.record(net, optimiser)
    assert uw.Trajectory(tmp_path).trained == {"0.weight", "0.bias", "2.weight", "2.bias"}
    optimiser.param_groups[1]["weight_decay"] = 0.5
    with pytest.raises(ValueError, match="changes of momentum, weight decay"):
        trajectory.record(net, optimiser)


def test_a_trajectory_of_the_first_format_is_read_and_continued(tmp_path):
    net = fresh()
    optimiser, trajectory = sgd(net, weight_decay=0.01), uw.Trajectory(tmp_path, every=2)
    steps(net, optimiser, trajectory, 4)
    content = json.loads((tmp_path / MANIFEST).read_text())["content"]
    content["version"] = 1
    del content["steps"]["decays"]
    (tmp_path / MANIFEST).write_text(json.dumps({"content": content, "crc32": zlib.crc32(encode(content))}))
    earlier = uw.Trajectory(tmp_path, every=2)
    assert earlier.trained is None
    assert model_of(net, tmp_path).checkpoints()[0].optimiser.decay_of("0.weight") == 0.01
    assert earlier.resume(net, optimiser) == 4
    steps(net, optimiser, earlier, 2, start=4)
    assert len(uw.Trajectory(tmp_path)) == 3


def _sealed(content):
    return json.dumps({"crc32": zlib.crc32(encode(content)), "content": content})


def test_a_forged_manifest_or_checkpoint_is_refused(tmp_path):
    """Their checksums are made to fit, as somebody would who forges a file."""
    net = nn.Linear(2, 1)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    trajectory = uw.Trajectory(tmp_path)
    net(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    trajectory.record(net, optimiser, batch=[3])
    content = json.loads((tmp_path / MANIFEST).read_text())["content"]
    shard, wrong = content["shards"][0], [None, True, -1, 1.5, float("nan"), "x", "../x", [], {}, [[]]]
    forged = ["[" * 100_000, "", "null", "[]", '{"content": {}}', json.dumps({"crc32": 1, "content": content})]
    forged += [_sealed({**content, name: value}) for name in ("version", "steps") for value in wrong]
    forged += [_sealed({**content, "shards": value}) for value in wrong if value not in ([], {})]
    forged += [_sealed({**content, "shards": [{**shard, "file": value}]}) for value in ("../x", None, 1)]
    parts = [{"travelled": float("nan")}, *({name: value} for name in ("step", "crc32") for value in ("x", None))]
    forged += [_sealed({**content, "shards": [{**shard, **part}]}) for part in parts]
    forged.append(_sealed({**content, "shards": [shard, shard]}))
    for text in forged:
        (tmp_path / MANIFEST).write_text(text)
        with pytest.raises(ValueError, match="is damaged or was not written by upweight"):
            uw.Trajectory(tmp_path)
    (tmp_path / MANIFEST).unlink()
    (tmp_path / MANIFEST).mkdir()
    with pytest.raises(ValueError, match="to be a file"):
        uw.Trajectory(tmp_path)
    (tmp_path / MANIFEST).rmdir()
    tensors = trajectory.read(0)
    rates = [{"rates": None}, {"rates": torch.ones(1)}, {"rates": torch.tensor([torch.nan]).double()}]
    texts = [b"[" * 100_000, b"[[[[1]]]]", b"[[[1], 2]]", b"[[1], [2]]", b"null", b"\xff"]
    batches = [{"batches": torch.frombuffer(bytearray(text), dtype=torch.uint8)} for text in texts]
    for changed in (*rates, *batches, {"batches": torch.ones(3)}):
        present = {name: tensor for name, tensor in {**tensors, **changed}.items() if tensor is not None}
        crc = write_checkpoint(tmp_path / shard["file"], present)
        (tmp_path / MANIFEST).write_text(_sealed({**content, "shards": [{**shard, "crc32": crc}]}))
        with pytest.raises(ValueError, match="is damaged or was not written by upweight"):
            uw.Trajectory(tmp_path).read(0)
