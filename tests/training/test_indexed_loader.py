"""Loaders that say which examples are in a batch: the batches are those of the plain loader."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
)

import upweight as uw

POSITIONS = [[0, 5, 9], [3, 3, 1]]
X = torch.arange(20.0)[:, None] * 10


def batches_of(loader: DataLoader[Any]) -> list[Any]:
    torch.manual_seed(3)
    return list(loader)


def doubled(items: list[Any]) -> Any:
    return torch.stack([x for (x,) in items]) * 2


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(X)


class Texts(Dataset[Any]):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"text": f"number {i}", "label": i}


LOADERS: dict[str, Any] = {
    "in order": lambda data: DataLoader(data, batch_size=6),
    "shuffled": lambda data: DataLoader(data, batch_size=6, shuffle=True, drop_last=True),
    "its own generator": lambda data: DataLoader(
        data, batch_size=6, shuffle=True, generator=torch.Generator().manual_seed(5)
    ),
    "weighted": lambda data: DataLoader(data, batch_size=6, sampler=WeightedRandomSampler([1.0, 5.0] * 8, 12)),
    "its own collate": lambda data: DataLoader(data, batch_size=6, shuffle=True, collate_fn=doubled),
    "one by one": lambda data: DataLoader(data, batch_size=None, shuffle=True),
}


@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
def test_batches_are_those_of_the_plain_loader_and_ids_name_them(make: Any) -> None:
    data = TensorDataset(X)
    plain, ids_and_batches = batches_of(make(data)), batches_of(uw.indexed(make(data)))
    scale = 2 if make is LOADERS["its own collate"] else 1
    for before, (ids, batch) in zip(plain, ids_and_batches, strict=True):
        tensor, expected = (value if isinstance(value, torch.Tensor) else value[0] for value in (batch, before))
        assert torch.equal(tensor, expected)
        assert torch.equal(tensor.reshape(-1), scale * X[ids, 0])


def test_workers_give_the_same_batches() -> None:
    data = TensorDataset(X)
    loader = DataLoader(data, batch_size=4, shuffle=True, num_workers=2)
    plain, with_ids = batches_of(loader), batches_of(uw.indexed(loader))
    assert all(torch.equal(a[0], b[0]) for a, (_, b) in zip(plain, with_ids, strict=True))
    assert all(torch.equal(b[0][:, 0], X[ids, 0]) for ids, b in with_ids)


def test_subsets_keep_the_positions_of_the_data_set_behind_them() -> None:
    inner = Subset(TensorDataset(X, torch.arange(20)), range(1, 20, 2))
    subset = Subset(inner, [4, 2, 0])
    train = uw.Examples.from_dataset(subset)
    assert train.ids.tolist() == [9, 5, 1] and train.y is not None and train.y.tolist() == [9, 5, 1]
    for ids, (_, labels) in uw.indexed(DataLoader(subset, batch_size=2, shuffle=True)):
        assert torch.equal(ids, labels)
    assert uw.Examples.from_dataset(inner, ids=[f"n{i}" for i in range(10)]).ids[3] == "n3"
    repeated = uw.Examples.from_dataset(Subset(TensorDataset(X, torch.arange(20)), [3, 3, 4]))
    assert repeated.ids.tolist() == [0, 1, 2]
    assert uw.Examples.from_dataset(DataLoader(subset, batch_size=2)).ids.tolist() == [9, 5, 1]


def test_a_subset_with_an_item_twice_has_the_ids_of_its_examples() -> None:
    subset = Subset(TensorDataset(X), [3, 3, 7, 1, 2])
    train = uw.Examples.from_dataset(subset)
    for ids, (inputs,) in uw.indexed(DataLoader(subset, batch_size=2, shuffle=True)):
        assert np.array_equal(np.asarray(train.x)[train.positions(ids)], inputs)


class View:
    """A subset of somebody else's."""

    def __init__(self, dataset: Any, indices: list[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Any:
        return self.dataset[self.indices[position]]


def test_subsets_of_any_class_have_the_ids_of_their_examples() -> None:
    view = View(TensorDataset(X), [8, 2, 5])
    train = uw.Examples.from_dataset(view)
    for ids, (inputs,) in uw.indexed(DataLoader(view, batch_size=2)):  # type: ignore[arg-type]
        assert np.array_equal(np.asarray(train.x)[train.positions(ids)], inputs)


def test_subsets_by_name_have_positions() -> None:
    subset = Subset(Named(), ["a", "b"])  # type: ignore[list-item]
    assert uw.Examples.from_dataset(subset).ids.tolist() == [0, 1]
    assert [ids.tolist() for ids, _ in uw.indexed(DataLoader(subset))] == [[0], [1]]


class WholeBatches(Dataset[Any]):
    """A data set that takes the positions of a whole batch."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, positions: Any) -> Any:
        return X[positions]


@pytest.mark.parametrize("form", [torch.tensor, np.array, lambda at: slice(at[0], at[0] + 2)])
@pytest.mark.parametrize("is_subset", [False, True])
def test_a_sampler_of_whole_batches_may_give_them_in_any_form(form: Any, is_subset: bool) -> None:
    data = Subset(WholeBatches(), torch.arange(20).flip(0)) if is_subset else WholeBatches()  # type: ignore[arg-type]
    loader = DataLoader(data, batch_size=None, sampler=[form(at) for at in POSITIONS])
    for plain, (ids, inputs) in zip(batches_of(loader), batches_of(uw.indexed(loader)), strict=True):
        assert torch.equal(plain, inputs) and torch.equal(X[ids], inputs)


class Noisy(Dataset[Any]):
    """Random inputs, from a generator that every worker seeds."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, position: int) -> Any:
        return self.generator.random()


def seed_worker(worker: int) -> None:
    info: Any = get_worker_info()
    info.dataset.generator = np.random.default_rng(100 + worker)


def test_a_worker_finds_the_data_set_of_the_user() -> None:
    loader = DataLoader(Noisy(), batch_size=4, num_workers=2, worker_init_fn=seed_worker)
    plain, with_ids = batches_of(loader), batches_of(uw.indexed(loader))
    assert all(torch.equal(a, b) for a, (_, b) in zip(plain, with_ids, strict=True))


def test_items_of_any_kind_are_carried() -> None:
    ((ids, batch),) = list(uw.indexed(DataLoader(Texts(), batch_size=5)))
    assert np.array_equal(ids, batch["label"]) and batch["text"][2] == "number 2"


def test_what_has_no_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="is a stream"):
        uw.indexed(DataLoader(Stream()))
    with pytest.raises(TypeError, match="the plain loader, before it is"):
        uw.indexed([1, 2])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"passed to uw\.indexed already"):
        uw.indexed(uw.indexed(DataLoader(TensorDataset(X))))


class Named(Dataset[Any]):
    """Examples under names, as a dict has them."""

    def __init__(self) -> None:
        self.items = {"a": torch.zeros(2), "b": torch.ones(2)}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, name: str) -> Any:
        return self.items[name]


@pytest.mark.parametrize("batched", [True, False])
def test_a_sampler_of_names_is_refused_in_a_sentence(batched: bool) -> None:
    size = {"batch_size": 2} if batched else {"batch_size": None}
    loader = DataLoader(Named(), sampler=["a", "b"], **size)  # type: ignore[arg-type]
    assert len(list(loader)) == (1 if batched else 2)
    with pytest.raises(TypeError, match=r"a sampler that gives positions 0, 1, …, got 'a'.*ids of your own"):
        list(uw.indexed(loader))
