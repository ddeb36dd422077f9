"""Every public name is documented, code on the pages runs, and links and the picture of the rooms are current."""

from __future__ import annotations

import importlib
import inspect
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

import upweight as uw
from support.warm_python import output_of
from upweight.cli import app

ROOT = Path(__file__).resolve().parent.parent
MADE_BY_THE_SITE = {"_build", "project", "reference"}  # folders of docs/ that `./run docs` writes


def pages_of(room: str) -> list[Path]:
    """The pages of a folder that are kept in the repository."""
    return [page for page in (ROOT / room).rglob("*.md") if page.relative_to(ROOT).parts[1] not in MADE_BY_THE_SITE]


TEXTS = [*ROOT.glob("*.md"), *pages_of("docs"), *pages_of("benchmarks"), *pages_of("experiments")]


@pytest.mark.parametrize("name", uw.methods())
def test_every_method_has_a_page_with_formula_cost_and_limits(name: str) -> None:
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text(encoding="utf-8")
    for part in ("What it answers", "Cost", "When it lies", uw.methods()[name].__name__):
        assert part in page, part


def test_every_public_name_is_in_the_documentation() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text += "".join(page.read_text(encoding="utf-8") for page in pages_of("docs"))
    missing = [name for name in uw.__all__ if not re.search(rf"\b{name}\b", text)]
    assert missing == []


def test_every_public_name_has_an_entry_in_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    pages = importlib.import_module("site_pages.api_reference").pages()
    entries = set(re.findall(r"^\.\. [\w:]+:: upweight\.(\w+)", "\n".join(pages.values()), re.MULTILINE))
    assert entries == set(uw.__all__)


def anchors(page: Path) -> set[str]:
    """The names by which links reach the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_on_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not link.startswith(("http:", "https:")):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{link}: expected a file or folder, found none"
            assert not anchor or anchor in anchors(target), f"{link}: expected a heading {anchor!r} on that page"


def test_the_picture_of_the_rooms_is_what_the_command_draws() -> None:
    draw = runpy.run_path(str(ROOT / "docs" / "architecture.py"))["draw"]
    picture = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    assert picture == draw(), "the imports changed; run python docs/architecture.py and look at the picture"


def test_the_table_of_rooms_names_exactly_the_rooms_of_the_package() -> None:
    described = set(runpy.run_path(str(ROOT / "docs" / "architecture.py"))["descriptions"]())
    package = ROOT / "src" / "upweight"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    assert described == rooms | {path.stem for path in package.glob("*.py") if not path.stem.startswith("__")}


def test_no_public_function_takes_more_than_seven_parameters() -> None:
    functions = {name: getattr(uw, name) for name in uw.__all__ if inspect.isfunction(getattr(uw, name))}
    assert {name for name, f in functions.items() if len(inspect.signature(f).parameters) > 7} == set()
    assert len(functions) > 20


PAGES = [page for page in pages_of("docs") if "```python" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_on_a_page_runs(page: Path, tmp_path: Path) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
    output_of(code, tmp_path)


def test_a_training_loop_needs_fewer_than_fifteen_more_lines_for_a_verified_report() -> None:
    page = (ROOT / "docs" / "methods" / "metagradient.md").read_text(encoding="utf-8")
    loop, more = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[:2]
    added = [line for line in loop.splitlines() if "# added" in line] + [line for line in more.splitlines() if line]
    assert len(added) < 15
    assert "optimiser.step()" in loop and all(call in more for call in ("Metagradient", "verify", "write_report"))


def test_the_readme_prints_what_its_code_prints(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code, output = re.search(r"```python\n(.*?)```\s*```text\n(.*?)```", text, re.DOTALL).groups()
    assert output_of(code, tmp_path).strip() == output.strip()


# The README's figures: what it says, where benchmarks/RESULTS.md has it, and the column there.
FIGURES = {
    "parameters at .99 (LDS)": "| calm | 50% | metagradient, centre | ",
    "another seed reaches .91": "| calm | 50% | another seed's retraining | ",
    "as large it is .81": "| hard | 50% | metagradient, centre | ",
    "another seed reaches .82": "| hard | 50% | another seed's retraining | ",
    "slope 1.0000": "| digits, standardised | 1697 × 100 | full | 1.000000 | ",
}


@pytest.mark.parametrize("sentence", FIGURES)
def test_the_readmes_figures_are_those_of_the_benchmarks(sentence: str) -> None:
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    figure = re.search(r"\d*\.\d+", sentence)[0]
    measured = results.split(FIGURES[sentence])[1].split(" ")[0]
    assert (
        f"{float(measured):.{len(figure.partition('.')[2])}f}" == f"{float(figure):.{len(figure.partition('.')[2])}f}"
    )
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert sentence in readme


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_on_a_page_exist(page: Path) -> None:
    commands = get_command(app).commands
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?:^|^    |^\$ |`)(?:\./run|upweight) ([a-z][a-z-]+)", text, re.MULTILINE)
    tasks = runpy.run_path(str(ROOT / "run"), run_name="run")["TASKS"]
    assert set(named) <= {*commands, *tasks}


# What the README's shorter examples assume: data, a net, and the imports of the libraries that they name.
PREAMBLE = """
import lightgbm, torch
import torch.nn.functional as F
import upweight as uw
from sklearn.datasets import load_breast_cancer
x, y = load_breast_cancer(return_X_y=True)
x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype("float32")
x, y, xq, yq = x[:200], y[:200], x[200:210], y[200:210]
net = torch.nn.Sequential(torch.nn.Linear(30, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
"""


def section(title: str) -> str:
    """The one block of code in this section of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text.split(f"## {title}\n")[1].split("\n## ")[0], re.DOTALL)
    return code


def files_after(code: str, folder: Path) -> list[str]:
    """The files that this program leaves in an empty folder."""
    output_of(code, folder)
    return [path.name for path in folder.iterdir()]


def test_the_readmes_transformer_is_explained_as_it_stands(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("datasets")
    page = (ROOT / "docs" / "huggingface.md").read_text(encoding="utf-8")
    tiny = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]  # a net, its tokenizer and its data set
    assumed = f"{tiny}\ndataset, mistakes = rows, rows.select([0, 1])\n"
    assert files_after(assumed + section("A fine-tuned transformer"), tmp_path) == ["report.html"]


@pytest.mark.parametrize(("title", "files"), [("A network", []), ("Boosted trees", ["report.html"])])
def test_the_readmes_shorter_examples_run_as_they_stand(title: str, files: list[str], tmp_path: Path) -> None:
    for module in ("lightgbm", "torch"):
        pytest.importorskip(module)
    code = section(title)
    assert files_after(PREAMBLE + code, tmp_path) == files
    if files:  # the report holds the verification by retraining, and took five lines with the import
        assert len(code.strip().splitlines()) < 5
        assert "Spearman" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "docs", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT)
    assert "Cleaning a text data set" in (tmp_path / "index.html").read_text(encoding="utf-8")
