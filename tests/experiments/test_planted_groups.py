"""The planted groups of the experiment on discovery, and what counts as found."""

import zipfile

import numpy as np
import pytest
from experiments.discover import __main__ as experiment
from experiments.discover import data
from sklearn.linear_model import LogisticRegression

import upweight as uw


def test_a_slice_has_a_fifth_from_each_domain():
    domains = [np.arange(100) < 5, np.arange(100) >= 95]
    places = data.slice_of(domains, 50, np.random.default_rng(0))
    assert len(places) == 50
    assert (places[:10] < 5).all() and (places[10:20] >= 95).all()


def test_customers_have_three_separate_groups_of_wrong_labels_or_none():
    planted, clean = data.table(0, True), data.table(0, False)
    assert planted.train.x.equals(clean.train.x) and not clean.groups
    groups, changed = planted.groups, planted.train.y != clean.train.y
    assert list(groups) == ["mislabeled source", "shortcut", "harmful sub-population"]
    assert sum(group.astype(int) for group in groups.values()).max() == 1
    assert not changed[~np.any(list(groups.values()), axis=0)].any()
    assert changed[groups["mislabeled source"]].all() and changed[groups["harmful sub-population"]].all()
    assert (planted.train.y[groups["shortcut"]] == 1).all()
    assert all(0.02 <= group.mean() <= 0.06 for group in groups.values())
    np.testing.assert_array_equal(planted.queries.y, clean.queries.y)


def test_reviews_are_whole_sentences_with_their_labels(tmp_path):
    with zipfile.ZipFile(tmp_path / "sst2.zip", "w") as archive:
        lines = [
            "sentence\tlabel",
            "a fragment \t1",
            *(f"review {i} of a film that is long \t{i % 2}" for i in range(9)),
        ]
        archive.writestr("SST-2/train.tsv", "\n".join(lines))
    from experiments.discover.reviews import reviews

    texts, labels = reviews(tmp_path, np.random.default_rng(0))
    assert sorted(texts) == [f"review {i} of a film that is long" for i in range(9)]
    assert [int(text.split()[1]) % 2 for text in texts] == labels.tolist()


@pytest.fixture(scope="module")
def flagged():
    """A small data set in which a flag goes with label 1 in training only."""
    rng = np.random.default_rng(1)

    def drawn(count, share):
        x = np.c_[rng.normal(size=(count, 2)), rng.random(count) < share]
        return x, (2 * x[:, 0] - 2 * x[:, 1] + rng.logistic(size=count) > 0).astype(int)

    x, y = drawn(400, 0.06)
    flag = x[:, 2] == 1
    train = uw.Examples(x, np.where(flag, 1, y), names=["a", "b", "flag"])
    queries, fresh = (uw.Examples(*drawn(count, 0.4), names=train.names) for count in (160, 2000))
    estimator = LogisticRegression(tol=1e-8).fit(train.x, train.y)
    return data.Planted(estimator, train, queries, fresh, {}, {"shortcut": flag, "nobody": np.zeros(400, dtype=bool)})


def test_a_group_counts_by_its_jaccard_index_and_its_effect_on_fresh_queries(flagged):
    found = experiment.outcome(flagged)
    assert found["jaccard"] == {"shortcut": 1.0, "nobody": 0.0} and found["names"] == ["flag = 1"]
    train, fresh = flagged.train, flagged.fresh
    group = uw.discover(uw.explainable(flagged.estimator, train), train, flagged.queries).groups[0]
    without = train.take(~flagged.groups["shortcut"])
    refit = LogisticRegression(tol=1e-8).fit(without.x, without.y)
    before, after = (-log_losses(estimator, fresh) for estimator in (flagged.estimator, refit))
    assert found["inside"] == [group.interval[0] <= (after - before).mean() <= group.interval[1]]


def log_losses(estimator, examples):
    return -np.log(estimator.predict_proba(examples.x)[np.arange(len(examples)), examples.y])


def test_the_table_says_what_was_found_and_what_missed():
    def numbers(jaccard, groups):
        return {"jaccard": jaccard, "groups": groups, "inside": [True], "seconds": 1.0}

    planted = [numbers({"source": 0.9, "shortcut": 0.7}, 2) for _ in range(10)]
    kinds = {"tables": {"planted": planted, "nothing planted": [numbers({}, 0)] * 9 + [numbers({}, 1)], "areas": []}}
    result = experiment.summary(kinds)
    verdicts = {row.what: (row.ours.partition(" (")[0], row.met) for row in result.rows}
    assert verdicts["tables: source found"] == ("10 of 10", True)
    assert verdicts["tables: shortcut found"] == ("0 of 10", False)
    assert verdicts["tables: nothing planted, nothing reported"] == ("9 of 10", True)
    assert verdicts["effects on 2,000 other queries inside the 90 % interval"] == ("100% of 20", True)
