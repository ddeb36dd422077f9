"""RESULTS.md is assembled from the JSON files."""

from dataclasses import replace

from benchmarks.results import Section
from experiments.results import Result, Row, assemble, read

RESULT = Result(
    title="Fig. 1: terms missing",
    claim="What it says.",
    rows=[Row("Pearson", ".95", ".951", True), Row("slope", "–", "1.0")],
    settings="a model",
    section="A paper (2017)",
    name="fig1",
    command="./run reproduce fig1",
    seconds=3.2,
    notes=["A reason."],
    pictures=["fig1.png"],
    numbers={"predicted": [0.5, 1.5]},
)


def test_a_saved_result_is_read_back_equal(tmp_path):
    result = read(RESULT.keep(tmp_path))
    assert replace(result, versions={}, machine="") == RESULT
    assert result.versions["Python"]


def test_every_folder_becomes_a_section_with_an_overview(tmp_path):
    RESULT.keep(tmp_path / "koh" / "results")
    replace(RESULT, name="fig2", rows=[Row("R", ".9", ".1", False)]).keep(tmp_path / "koh" / "results")
    replace(RESULT, section="Another (2018)").keep(tmp_path / "trees" / "results")
    text = assemble(tmp_path).read_text(encoding="utf-8")
    assert text.index("## A paper (2017)") < text.index("## Another (2018)")
    assert "| [Fig. 1: terms missing](#fig-1-terms-missing) | Pearson | .95 | .951 | met | 3.2 s |" in text
    assert "| R | .9 | .1 | **missed** |" in text
    assert "![Fig. 1: terms missing](koh/results/fig1.png)" in text
    assert "- A reason." in text


def test_sections_of_benchmarks_that_the_order_does_not_know_come_last(tmp_path):
    for name in ("of later", "speed", "accuracy"):
        Section(name, name.title(), "python -m benchmarks", []).keep(tmp_path)
    titles = [line for line in (tmp_path / "RESULTS.md").read_text(encoding="utf-8").splitlines() if "## " in line]
    assert titles == ["## Accuracy", "## Speed", "## Of Later"]
