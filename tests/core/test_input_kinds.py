import numpy as np
import pytest

from upweight import Examples


class Dataset:
    """A map-style data set over a list of items."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        item = self.items[i]
        return item() if callable(item) else item


class Tensor:
    """As much of a torch tensor as is asked of it."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def detach(self):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return self.values


class SequentialSampler: ...


class RandomSampler: ...


class Loader:
    def __init__(self, dataset, sampler):
        self.dataset, self.sampler = dataset, sampler


PAIRS = [(np.array([i, i + 1.0]), i % 3) for i in range(20)]


@pytest.mark.parametrize(
    "items",
    [
        PAIRS,
        [list(pair) for pair in PAIRS],
        [{"x": x, "y": y} for x, y in PAIRS],
        [{"image": x, "label": y, "path": "…"} for x, y in PAIRS],
        [(Tensor(x), Tensor(y)) for x, y in PAIRS],
    ],
)
def test_pairs_and_dicts_are_read(items):
    examples = Examples.from_dataset(Dataset(items), ids=[f"file-{i}" for i in range(20)])
    assert examples.x.tolist() == [x.tolist() for x, _ in PAIRS]
    assert examples.y.tolist() == [y for _, y in PAIRS]
    assert examples.ids[7] == "file-7"


def test_texts_stay_texts():
    examples = Examples.from_dataset(Dataset([("good", 1), ("bad", 0)]))
    assert examples.x == ["good", "bad"] and examples.preview(1).value == "bad"


@pytest.mark.parametrize("items", [[np.eye(2), np.ones((2, 2))], [(np.eye(2),), (np.ones((2, 2)),)]])
def test_items_without_targets_make_examples_without_labels(items):
    examples = Examples.from_dataset(Dataset(items))
    assert examples.y is None and examples.x.shape == (2, 2, 2)


def test_images_of_3_dimensions():
    assert Examples.from_dataset(Dataset([(np.zeros((3, 8, 8)), 0)] * 4)).x.shape == (4, 3, 8, 8)


def test_items_are_read_once_with_a_few_exceptions():
    reads = []

    class Counting(Dataset):
        def __getitem__(self, i):
            reads.append(i)
            return super().__getitem__(i)

    Examples.from_dataset(Counting(PAIRS * 50))
    assert set(reads) == set(range(1000)) and len(reads) <= 1016


def test_nan_and_words_are_the_same_when_read_twice():
    examples = Examples.from_dataset(Dataset([(np.array([np.nan, 1.0]), "ham"), (np.array([2.0, np.nan]), "spam")]))
    assert examples.y.tolist() == ["ham", "spam"]
    rows = [(np.array(["red", 3], dtype=object), 0), (np.array(["blue", 4], dtype=object), 1)]
    assert Examples.from_dataset(Dataset(rows)).x[1].tolist() == ["blue", 4]
    assert Examples.from_dataset(Dataset([(np.array(["red", "blue"]), 0)])).x.tolist() == [["red", "blue"]]


@pytest.mark.parametrize("noise", [lambda random: random.normal(size=4), lambda random: random.permutation(4)])
def test_a_data_set_that_augments_is_refused(noise):
    random = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"item \d+ differs when it is read twice: .* switch the augmentation off"):
        Examples.from_dataset(Dataset([lambda: (noise(random), 0)] * 30))


def test_a_flip_of_every_other_image_is_noticed():
    random = np.random.default_rng(0)
    image = np.arange(4.0)

    def flipped():
        return (image[::-1] if random.random() < 0.5 else image), 0

    for _ in range(50):
        with pytest.raises(ValueError, match="augments or is random"):
            Examples.from_dataset(Dataset([flipped] * 30))


def test_labels_that_change_are_noticed_too():
    random = np.random.default_rng(0)
    with pytest.raises(ValueError, match="augments or is random"):
        Examples.from_dataset(Dataset([lambda: (np.ones(2), int(random.integers(1000)))] * 5))


def test_a_loader_in_order_is_read_through():
    examples = Examples.from_dataset(Loader(Dataset(PAIRS), SequentialSampler()))
    assert examples.y.tolist() == [y for _, y in PAIRS]


def test_a_shuffling_loader_is_refused():
    with pytest.raises(ValueError, match=r"by RandomSampler, .* pass loader\.dataset, or a loader with shuffle=False"):
        Examples.from_dataset(Loader(Dataset(PAIRS), RandomSampler()))


@pytest.mark.parametrize("dataset", [iter([1, 2]), (i for i in range(3)), {1, 2}, 5])
def test_what_has_no_positions_is_refused(dataset):
    with pytest.raises(TypeError, match=r"a data set with len\(\) and \[i\], got .*collect it into a list"):
        Examples.from_dataset(dataset)


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([], "at least one example, got an empty data set"),
        ([{"pixels": 1, "class": 2}], r"one of the keys x, input, .* got \['class', 'pixels'\]"),
        ([(1, 2, 3)], r"\(input, target\), got a tuple of 3; pick two"),
        ([(np.ones(2), 0), (np.ones(3), 1)], r"inputs of one shape, got \(2,\) and \(3,\); resize or pad"),
        ([("a", None), ("b", 1)], "`y` has missing values"),
        ([("a", 1), ("b", None)], "`y` has missing values"),
    ],
)
def test_items_of_another_form_are_refused(items, says):
    with pytest.raises(ValueError, match=says):
        Examples.from_dataset(Dataset(items))
