"""Examples over a `datasets.Dataset`: its rows stay in Arrow, and behave as those of a list do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import upweight as uw

datasets = pytest.importorskip("datasets")
ROWS = {"input_ids": [[1, 2, 3], [4], [5, 6], [7, 8, 9, 10]], "text": ["a b", "c", "d e", "f"], "label": [0, 1, 1, 0]}


def rows(**changed: Any) -> Any:
    return datasets.Dataset.from_dict({**ROWS, **changed})


def test_parts_are_data_sets_with_the_same_rows() -> None:
    examples = uw.Examples(rows(), ids=list("abcd"))
    for part, expected in [
        (examples.take([2, 0]), [2, 0]),
        (examples.select(["d"]), [3]),
        (examples.without(["b"]), [0, 2, 3]),
        (examples.take(np.array([False, True, True, False])), [1, 2]),
        (examples.take([0, 1]).joined(examples.take([3])), [0, 1, 3]),
        (examples.take([2, 0]).take([1]), [0]),
    ]:
        assert isinstance(part.x, datasets.Dataset)
        assert part.x["input_ids"][:] == [ROWS["input_ids"][i] for i in expected]
        assert part.ids.tolist() == [list("abcd")[i] for i in expected]
    assert [batch.x["text"][:] for batch in examples.batches(3)] == [["a b", "c", "d e"], ["f"]]


def test_labels_and_columns_of_a_data_set_are_read_by_name() -> None:
    examples = uw.Examples.from_dataset(rows())
    assert examples.y is not None and examples.y.tolist() == [0, 1, 1, 0]
    assert examples.x.column_names == ["input_ids", "text"]
    assert uw.Examples.from_dataset(rows(label=[[0], [1], [1], [0]])).y is None
    texts = uw.Examples(rows()["text"], rows()["label"], weights=rows()["label"])
    assert texts.x == ROWS["text"] and texts.y is not None and texts.y.tolist() == ROWS["label"]


def test_equal_contents_have_one_digest_however_they_are_stored(tmp_path: Path) -> None:
    rows().save_to_disk(tmp_path / "rows")
    chunks = datasets.concatenate_datasets([rows().select([0]), rows().select([1, 2, 3])])
    shuffled = rows().select([3, 1, 0, 2]).select([2, 1, 3, 0])
    digests = {uw.Examples(x).digest() for x in (rows(), datasets.load_from_disk(tmp_path / "rows"), chunks, shuffled)}
    assert len(digests) == 1


@pytest.mark.parametrize(
    "other",
    [
        rows(text=["a b", "c", "d e", "g"]),
        rows(input_ids=[[1, 2], [3, 4], [5, 6], [7, 8, 9, 10]]),
        rows(input_ids=[[1, 2, 3], None, [5, 6], [7, 8, 9, 10]]),
        rows(label=[0, 1, 1, None]),
        rows().select([1, 0, 2, 3]),
        rows().rename_column("text", "words"),
        rows().with_format("torch"),
    ],
)
def test_other_contents_have_another_digest(other: Any) -> None:
    assert uw.Examples(other).digest() != uw.Examples(rows()).digest()


def test_nested_columns_and_labels_with_names_are_digested() -> None:
    features = datasets.Features(
        {"word": datasets.ClassLabel(names=["a", "b"]), "place": {"x": datasets.Value("int8")}}
    )
    nested = [datasets.Dataset.from_dict({"word": [0, 1], "place": [{"x": 1}, {"x": k}]}, features) for k in (2, 3, 2)]
    digests = [uw.Examples(x).digest() for x in nested]
    assert digests[0] == digests[2] != digests[1]


def test_a_preview_shows_the_texts_of_a_row_or_the_beginnings_of_its_lists() -> None:
    assert uw.Examples(rows()).preview(0) == uw.Preview("text", "a b")
    numbers = uw.Examples(datasets.Dataset.from_dict({"tokens": [list(range(20)), [1]]}))
    assert numbers.preview(0).value == (("tokens", "0, 1, 2, 3, 4, 5, 6, 7, … (20 in all)"),)


def test_streams_splits_and_random_transforms_are_refused() -> None:
    with pytest.raises(TypeError, match=r"which is streamed.*Dataset.from_list"):
        uw.Examples(rows().to_iterable_dataset())
    with pytest.raises(TypeError, match=r"got all of \['test', 'train'\]"):
        uw.Examples(datasets.DatasetDict({"train": rows(), "test": rows()}))
    noise = np.random.default_rng(0)
    noisy = rows().with_transform(lambda batch: {"x": [noise.normal() for _ in batch["text"]]})
    with pytest.raises(ValueError, match="differs when it is read twice"):
        uw.Examples(noisy)
    assert len(uw.Examples(rows().with_transform(lambda batch: {"x": [len(t) for t in batch["text"]]}))) == 4
