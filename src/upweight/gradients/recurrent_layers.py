"""Recurrent layers step by step: each of their weights is a linear layer whose input and output hooks can record.

A weight of an LSTM, GRU or RNN multiplies the input of every step, or the state before it. `unrolled` computes what the
layer computes and reports both products, so that gradients are outer products of what went in and of the slopes of the
gates, as for `nn.Linear` at several positions. The equations are those of torch's documentation of the layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

# (local name of the weight, that of the bias, inputs (B, T, d_i), outputs (B, T, d_o) → None), for every product
Report = Callable[[str, str, Tensor, Tensor], None]
State = tuple[Tensor, ...]  # h, and c of an LSTM


def _lstm(entering: Tensor, recurrent: Tensor, state: State) -> State:
    i, f, g, o = (entering + recurrent).chunk(4, dim=-1)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _gru(entering: Tensor, recurrent: Tensor, state: State) -> State:
    r, z, n = entering.chunk(3, dim=-1)
    of_r, of_z, of_n = recurrent.chunk(3, dim=-1)
    new = (n + (r + of_r).sigmoid() * of_n).tanh()
    return (new + (z + of_z).sigmoid() * (state[0] - new),)


def _tanh(entering: Tensor, recurrent: Tensor, state: State) -> State:
    return ((entering + recurrent).tanh(),)


def _relu(entering: Tensor, recurrent: Tensor, state: State) -> State:
    return ((entering + recurrent).relu(),)


STEPS = {"LSTM": _lstm, "GRU": _gru, "RNN_TANH": _tanh, "RNN_RELU": _relu}
LAYERS = (nn.LSTM, nn.GRU, nn.RNN)
CELLS: Mapping[type[nn.Module], str] = {nn.LSTMCell: "LSTM", nn.GRUCell: "GRU"}


def can_unroll(module: nn.Module) -> bool:
    """Whether this is a layer or cell of torch's own, which nobody compiled or gave another forward."""
    is_own = type(module) in LAYERS or type(module) in CELLS or type(module) is nn.RNNCell
    return is_own and "forward" not in module.__dict__ and module._compiled_call_impl is None


def unrolled(module: nn.Module, report: Report, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What `module(*args, **kwargs)` returns, with every product reported; None for calls that it does not cover.

    These are single sequences without an axis of examples, and dropout between layers in training mode.
    """
    given = {**dict(zip(("input", "hx"), args, strict=False)), **kwargs}
    inputs, hx = given.get("input"), given.get("hx")
    if isinstance(module, nn.RNNCellBase):
        return _cell(module, report, inputs, hx)
    assert isinstance(module, nn.RNNBase)
    if module.training and module.dropout:
        return None
    if isinstance(inputs, PackedSequence):
        padded, lengths = pad_packed_sequence(inputs, batch_first=True)
        outputs, state = _layers(module, report, padded, hx, lengths.to(padded.device))
        return _packed(outputs, inputs), state
    if not isinstance(inputs, Tensor) or inputs.ndim != 3:
        return None
    outputs, state = _layers(module, report, inputs if module.batch_first else inputs.transpose(0, 1), hx, None)
    return outputs if module.batch_first else outputs.transpose(0, 1), state


def _layers(module: nn.RNNBase, report: Report, inputs: Tensor, hx: Any, lengths: Tensor | None) -> tuple[Tensor, Any]:
    """All layers and directions: outputs (B, T, ·), and the last states as torch returns them."""
    has_cell, directions = isinstance(module, nn.LSTM), ["", "_reverse"] if module.bidirectional else [""]
    last: list[State] = []
    for layer in range(module.num_layers):
        outputs = []
        for direction in directions:
            if hx is None:
                widths = [module.proj_size or module.hidden_size, *([module.hidden_size] if has_cell else [])]
                state: State = tuple(inputs.new_zeros(len(inputs), width) for width in widths)
            else:
                state = tuple(part[len(last)] for part in (hx if has_cell else (hx,)))
            output, state = _direction(module, report, f"_l{layer}{direction}", inputs, state, lengths)
            outputs.append(output)
            last.append(state)
        inputs = torch.cat(outputs, dim=-1) if len(outputs) > 1 else outputs[0]
    states = tuple(torch.stack(parts) for parts in zip(*last, strict=True))
    return inputs, states if has_cell else states[0]


def _direction(
    module: nn.RNNBase, report: Report, suffix: str, inputs: Tensor, state: State, lengths: Tensor | None
) -> tuple[Tensor, State]:
    """One layer in one direction: outputs (B, T, ·) and the state after the last step of every sequence."""
    of_inputs, of_state = (getattr(module, f"{name}{suffix}") for name in ("weight_ih", "weight_hh"))
    biases = [getattr(module, f"{name}{suffix}", None) for name in ("bias_ih", "bias_hh")]
    projection = getattr(module, f"weight_hr{suffix}", None)
    entering = functional.linear(inputs, of_inputs, biases[0])
    report(f"weight_ih{suffix}", f"bias_ih{suffix}", inputs, entering)
    probe, steps = _probe(entering), range(inputs.shape[1])
    ends = None if projection is None else _probe(entering[..., : len(projection)])
    parts, added = entering.unbind(1), probe.unbind(1)
    after = () if ends is None else ends.unbind(1)
    before: list[Tensor] = [inputs] * len(steps)
    wide: list[Tensor] = [inputs] * len(steps)
    outputs: list[Tensor] = [inputs] * len(steps)
    for t in reversed(steps) if suffix.endswith("_reverse") else steps:
        before[t] = state[0].detach()
        recurrent = functional.linear(state[0], of_state, biases[1]) + added[t]
        new = STEPS[module.mode](parts[t], recurrent, state)
        if projection is not None:
            wide[t] = new[0].detach()
            new = (functional.linear(new[0], projection) + after[t], *new[1:])
        if lengths is not None:  # a sequence that is over, or has not begun from its end, keeps its state
            is_inside = (t < lengths)[:, None]
            new = tuple(torch.where(is_inside, a, b) for a, b in zip(new, state, strict=True))
        state, outputs[t] = new, new[0]
    report(f"weight_hh{suffix}", f"bias_hh{suffix}", torch.stack(before, dim=1), probe)
    if ends is not None:
        report(f"weight_hr{suffix}", "", torch.stack(wide, dim=1), ends)
    return torch.stack(outputs, dim=1), state


def _cell(module: nn.RNNCellBase, report: Report, inputs: Any, hx: Any) -> Any:
    """One step of a cell; inputs (B, d_i)."""
    if not isinstance(inputs, Tensor) or inputs.ndim != 2:
        return None
    mode = CELLS[type(module)] if type(module) in CELLS else f"RNN_{str(module.nonlinearity).upper()}"
    has_cell = mode == "LSTM"
    if hx is None:
        hx = tuple(inputs.new_zeros(len(inputs), module.hidden_size) for _ in range(1 + has_cell))
    state: State = tuple(hx) if isinstance(hx, tuple | list) else (hx,)
    entering = functional.linear(inputs, module.weight_ih, module.bias_ih)
    recurrent = functional.linear(state[0], module.weight_hh, module.bias_hh)
    report("weight_ih", "bias_ih", inputs, entering)
    report("weight_hh", "bias_hh", state[0], recurrent)
    new = STEPS[mode](entering, recurrent, state)
    return new if has_cell else new[0]


def _probe(like: Tensor) -> Tensor:
    """Zeros of this shape whose gradient is that of what they are added to."""
    return torch.zeros_like(like, requires_grad=True)


def _packed(outputs: Tensor, like: PackedSequence) -> PackedSequence:
    """Outputs (B, T, ·) in the packed order of the input."""
    ordered = outputs if like.sorted_indices is None else outputs[like.sorted_indices]
    data = torch.cat([ordered[:count, t] for t, count in enumerate(like.batch_sizes.tolist())])
    return PackedSequence(data, like.batch_sizes, like.sorted_indices, like.unsorted_indices)
