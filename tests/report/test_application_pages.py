"""The pages of slices, perturb and what_if: what they say, and that nothing of the data is taken for HTML."""

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import upweight as uw
from support.report_stand_ins import HOSTILE
from upweight import DiscoveredGroup, UnsupportedRegion


class Tags(HTMLParser):
    """Every tag with its attributes, as a browser would see them."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 4))
    y = (x[:, 0] + rng.normal(size=80) > 0).astype(int)
    names = ["a", "b " + HOSTILE, "c", "d"]
    labels = {0: "no " + HOSTILE, 1: "yes"}
    train = uw.Examples(x[:60], y[:60], ids=[f"t{i}" for i in range(60)], names=names, labels=labels)
    queries = uw.Examples(x[60:], y[60:], ids=[f"q{i}" for i in range(20)], names=names, labels=labels)
    return uw.explainable(LogisticRegression(tol=1e-8).fit(train.x, train.y), train), train, queries


def rendered(tmp_path, found):
    path = uw.write_page(tmp_path / "page.html", found)
    html = path.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(html)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags.found}
    for _, attributes in tags.found:
        assert not [name for name in attributes if name == "style" or name.startswith("on") or name == "href"]
        assert attributes.get("src", "data:").startswith("data:")
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
    return html


def test_prototypes(tmp_path, fitted):
    model, train, _ = fitted
    html = rendered(tmp_path, uw.prototypes(model, train, k=4))
    assert html.count("<h2>Class") == 2 and HOSTILE not in html
    assert "</span> denser" in html or "</span> sparser" in html


def test_flip_set(tmp_path, fitted):
    model, train, queries = fitted
    search = uw.SetSearch(most=20, exhaustive=0, noun="rows")
    flip = uw.flip_set(model, train, queries.take([0]), search=search, retraining=uw.Retraining(processes=1))
    html = rendered(tmp_path, flip)
    assert "rows" in html and "What is compared" in html and HOSTILE not in html
    assert ("Rows to remove" in html) == bool(flip.removed)
    nothing = uw.flip_set(model, train, queries.take([0]), candidates=[train.ids[0].item()])
    assert "no flip found" in rendered(tmp_path, nothing)


def test_forget(tmp_path, fitted):
    model, train, queries = fitted
    html = rendered(tmp_path, uw.forget(model, train, train.ids[:12], unseen=queries, compare=True))
    assert "Deleted" in html and "nothing of these examples" in html.lower() and HOSTILE not in html
    assert "What losses tell about membership" in html and "trained again without them" in html
    trees = GradientBoostingClassifier(n_estimators=3, random_state=0).fit(train.x, train.y)
    kept = rendered(tmp_path, uw.forget(uw.explainable(trees, train), train, ["t0"]))
    assert "This is not a deletion" in kept and "of 3 trees have other splits" in kept


def test_reweight(tmp_path, fitted):
    model, train, queries = fitted
    validation, held_out = queries.take(np.arange(10)), queries.take(np.arange(10, 20))
    fast = uw.Reweighting(steps=3, rate=0.5)
    html = rendered(tmp_path, uw.reweight(model, train, validation, held_out=held_out, reweighting=fast))
    assert "Gain on held-out data" in html and "Lowest weights" in html and HOSTILE not in html
    groups = {"first " + HOSTILE: train.ids[:20].tolist()}
    html = rendered(tmp_path, uw.reweight(model, train, validation, groups=groups, reweighting=fast))
    assert "Weights of the groups" in html and HOSTILE not in html and "gain was not measured" in html


def test_discover(tmp_path, fitted):
    model, train, queries = fitted
    result = uw.discover(model, train, queries, uw.GradDot())
    assert "Which training examples harm these queries?" in rendered(tmp_path, result)
    group = DiscoveredGroup(
        conditions=("b " + HOSTILE + " = 1", "a > 2"),
        ids=tuple(train.ids[:9].tolist()),
        labels={"yes": 9},
        typical=tuple(train.ids[:3].tolist()),
        predicted=0.2,
        effect=0.3,
        interval=(0.1, 0.5),
        p=0.001,
        helped=("q1", "q2"),
        confirmed=True,
    )
    far = UnsupportedRegion(("q3",), "a > 9", 0.2, 0.001)
    html = rendered(tmp_path, replace(result, groups=(group,), rejected=(group,), unsupported=far))
    assert "not confirmed by retraining" in html and "few training examples near them: a &gt; 9" in html
    assert HOSTILE not in html and "labels yes: 9" in html


def test_audit(tmp_path, fitted):
    model, train, queries = fitted
    twin = queries.replaced(x=np.concatenate([train.x[:1], queries.x[1:]]))
    sites = {"site": np.where(np.arange(60) < 30, "north " + HOSTILE, "south")}
    explained = uw.explain(model, train, twin, removals=0)
    html = rendered(tmp_path, uw.audit(explained, sites, query_groups={"site": np.full(20, "south")}))
    assert "Training example t0 is equal to it." in html and "1 of 20 predictions flagged" in html
    assert html.count("</tr>") == 21 and HOSTILE not in html
    (tmp_path / "page.html").unlink()
    assert "No prediction is flagged" in rendered(tmp_path, uw.audit(uw.explain(model, train, queries, removals=0)))


def test_the_report_of_an_explanation_says_whether_support_is_unusual(tmp_path, fitted):
    model, train, queries = fitted
    twin = queries.replaced(x=np.concatenate([train.x[:1], queries.x[1:]]))
    explained = uw.explain(model, train, twin, removals=0)
    plain = uw.write_page(tmp_path / "plain.html", explained).read_text(encoding="utf-8")
    assert '"support"' not in plain
    audited = explained.with_audit(uw.audit(explained, {"site": ["a"] * 60}))
    html = uw.write_page(tmp_path / "page.html", audited, description=["A model."]).read_text(encoding="utf-8")
    assert html.count('"sentence":"Nothing unusual."') == 19 and "A model." in html
    assert '"sentence":"Training example t0 is equal to it."' in html
    assert "Warning from support audit" in html and "groups of the queries by site are not known" in html


def test_poisoned(tmp_path, fitted):
    model, train, queries = fitted
    result = uw.poisoned(model, train, queries, uw.GradCos(), fit=uw.FIT(clean=queries, level=0.06), targets=["q0"])
    html = rendered(tmp_path, result)
    assert "without attackers" in html and "</span> flagged</small>" not in html and HOSTILE not in html
    assert html.count("</tr>") == 21 and "confirmed by retraining" in html
    assert f"probability of {result.of('q0').predicted} before" in html
    (tmp_path / "page.html").unlink()
    assert "No query is flagged." in rendered(tmp_path, uw.poisoned(model, train, queries, uw.GradCos(), targets=0))


def test_shared_inputs(tmp_path, fitted):
    model, train, queries = fitted
    explained = uw.explain(model, train, queries.take(range(3)), removals=0)
    html = rendered(tmp_path, uw.shared_inputs(model, explained, k=2))
    assert html.count("<h2>Query") == 3 and html.count("in common</p>") == 6 and HOSTILE not in html
    assert html.count('<rect class="') == 9 * 4 and "necessity" in html


def test_shared_words_are_coloured_where_they_stand_in_the_text(tmp_path):
    texts = [f"good {HOSTILE} film", "bad film", "a good play", "bad and dull"] * 4
    train = uw.Examples(texts, [1, 0, 1, 0] * 4)
    model = uw.explainable(make_pipeline(TfidfVectorizer(), LogisticRegression(tol=1e-8)).fit(texts, train.y), train)
    explained = uw.explain(model, train, uw.Examples([f"So good! {HOSTILE}"], [1]), removals=0)
    html = rendered(tmp_path, uw.shared_inputs(model, explained))
    assert '<mark class="up4">good</mark>! ' in html and HOSTILE not in html


def test_shared_pixels_are_heat_maps(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 16)), np.arange(40) % 2
    whole = uw.Examples(x, y, shown=x.reshape(-1, 4, 4))
    train = whole.take(range(30))
    model = uw.explainable(LogisticRegression(tol=1e-8).fit(train.x, train.y), train)
    explained = uw.explain(model, train, whole.take([35]), removals=0)
    assert rendered(tmp_path, uw.shared_inputs(model, explained, k=3)).count("<img") == 2 * 4


def test_neurons(tmp_path, fitted):
    model, train, _ = fitted
    html = rendered(tmp_path, uw.neuron_examples(model, train, neurons=[1, 3], k=5))
    assert html.count("<h2>Neuron") == 2 and html.count('<li class="row">') == 10 and HOSTILE not in html
    assert "(training set" in html


def test_retrieved_examples(tmp_path, fitted):
    model, train, queries = fitted
    settings = uw.Retrieval(method=uw.Influence(), candidates=4, k=2)
    html = rendered(tmp_path, uw.retrieve(model, train, queries.take([0, 1]), settings))
    assert html.count("<h2>Query") == 2 and " by RepSim" in html and HOSTILE not in html
    assert "Nothing was audited" in html


def test_tree(tmp_path, fitted):
    model, train, queries = fitted
    result = uw.extract_tree(model, train, queries, leaves=5, samples=400)
    html = rendered(tmp_path, result)
    assert html.count('class="leaf"') == len(result.leaves) and HOSTILE not in html
    assert f"fidelity on queries {result.fidelity['queries']:.3f}" in html


def test_slices(tmp_path, fitted):
    model, train, queries = fitted
    groups = {"site " + HOSTILE: np.where(np.arange(60) < 30, "north", "south")}
    found = uw.slices(model, train, queries, uw.Slicing(groups, {"all": queries.ids}))
    html = rendered(tmp_path, found)
    assert "all: 20 queries" in html and "= north" in html and "predictions flipped" in html
    assert html.count('class="range"') == 2 and html.count('class="point"') == 2


def test_what_if(tmp_path, fitted):
    model, train, queries = fitted
    found = uw.what_if(model, train, queries, {"x" + HOSTILE: uw.Change(remove=train.ids[:20].tolist())})
    html = rendered(tmp_path, found)
    assert "20 training examples changed" in html and "query q3" in html
    bare = uw.what_if(model, train, queries, uw.Change(remove=["t1"]), removals=None)
    html = rendered(tmp_path, bare)
    assert 'class="point"' not in html and 'class="range"' not in html


def test_perturb(tmp_path, fitted):
    model, train, queries = fitted
    html = rendered(tmp_path, uw.perturb(model, train, queries.take([0]), k=2))
    assert html.count("<table") == 2 and "Numbers are inputs" in html


def test_pictures_get_a_picture_of_their_contributions(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 16)), np.arange(40) % 2
    whole = uw.Examples(x, y, shown=x.reshape(-1, 4, 4))
    train = whole.take(range(30))
    model = uw.explainable(LogisticRegression(tol=1e-8).fit(train.x, train.y), train)
    html = rendered(tmp_path, uw.perturb(model, train, whole.take([35]), k=1))
    assert html.count("<figure>") == 3 and "blue raises" in html


def test_local_models_and_growing_spheres(tmp_path, fitted):
    model, train, queries = fitted
    few = uw.Neighbours(samples=100, influential=20)
    html = rendered(tmp_path, uw.local_model(model, queries.take([1]), train, neighbours=few))
    assert html.count('class="plain bars"') == 2 and "the nearest training examples (40)" in html
    assert HOSTILE not in html and "score " in html and "training examples by Influence" in html
    alone = rendered(tmp_path, uw.local_model(model, queries.take([1]), train, neighbours=uw.Neighbours(influential=0)))
    assert alone.count('class="plain bars"') == 1 and "Influential training examples" not in alone
    html = rendered(tmp_path, uw.growing_spheres(model, queries.take([1]), train, spheres=uw.Spheres(samples=200)))
    assert "across the border" in html and "sd</td>" in html and HOSTILE not in html
    pick = uw.Pick(k=2, candidates=4, of="influential", features=3)
    html = rendered(tmp_path, uw.global_explanation(model, queries, train, pick=pick, neighbours=few))
    assert html.count('class="plain bars"') == 3 and "Training example t" in html and HOSTILE not in html


def test_local_models_of_texts_and_pictures(tmp_path):
    texts = [f"{a} {b} <b>film</b>" for a in ("good", "fine", "bad", "dull") for b in ("old", "new", "long")] * 2
    train = uw.Examples(texts, [1] * 6 + [0] * 6 + [1] * 6 + [0] * 6)
    model = uw.explainable(make_pipeline(TfidfVectorizer(), LogisticRegression(tol=1e-8)).fit(texts, train.y), train)
    few = uw.Neighbours(samples=50, influential=8)
    html = rendered(tmp_path, uw.local_model(model, train.take([0]), train, neighbours=few))
    assert '<mark class="pro-3">good</mark>' in html and "<b>film" not in html
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 16)), np.arange(40) % 2
    whole = uw.Examples(x, y, shown=x.reshape(-1, 4, 4))
    train = whole.take(range(30))
    model = uw.explainable(LogisticRegression(tol=1e-8).fit(train.x, train.y), train)
    squares = uw.Neighbours(samples=50, influential=8, segments=np.arange(16).reshape(4, 4) // 8)
    html = rendered(tmp_path, uw.local_model(model, whole.take([35]), train, neighbours=squares))
    assert html.count("<figure>") == 3 and "superpixel 1" in html
    html = rendered(tmp_path, uw.growing_spheres(model, whole.take([35]), train, spheres=uw.Spheres(samples=200)))
    assert html.count("<figure>") == 7 and "changed: " in html


def test_anything_else_is_refused(tmp_path, fitted):
    expected = "expected what an application returned, such as mislabeled, .* got dict; for scores, use write_report"
    with pytest.raises(TypeError, match=expected):
        uw.write_page(tmp_path / "page.html", {})
