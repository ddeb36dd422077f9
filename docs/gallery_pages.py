"""Pictures of the pages that people see: the results of the documentation's own code, in a browser.

`python docs/gallery.py` draws them. One picture has four looks at a page: on a desktop, light and dark, and on a phone,
light and in shades of grey.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

import upweight as uw

DOCS = Path(__file__).resolve().parent
FOLDER = DOCS / "gallery"
PAGES = {  # picture → page of the documentation, and the name of the result in its code
    "explain": ("applications/explain.md", "explanation"),
    "mislabeled": ("exports.md", "suspects"),
    "slices": ("applications/slices.md", "result"),
    "audit": ("applications/audit.md", "audited"),
    "prototypes": ("applications/prototypes.md", "chosen"),
    "local_model": ("applications/local_model.md", "local"),
    "global_explanation": ("applications/local_model.md", "overall"),
    "growing_spheres": ("applications/growing_spheres.md", "nearest"),
    "shared_inputs": ("applications/input_attributions.md", "shared"),
    "fgsm": ("applications/input_attributions.md", "moved"),
    "neurons": ("applications/neurons.md", "pixels"),
    "tree": ("applications/tree.md", "tree"),
    "tokens": ("tokens.md", "result"),
    "perturb": ("applications/perturb.md", "perturbation"),
    "attack": ("applications/perturb.md", "attacked"),
    "poisoned": ("applications/poisoned.md", "search"),
    "discover": ("applications/discover.md", "result"),
    "flip_set": ("applications/flip_set.md", "flip"),
    "forget": ("applications/forget.md", "result"),
    "what_if": ("applications/what_if.md", "result"),
    "retrieve": ("applications/retrieve.md", "found"),
}
DESKTOP, PHONE = (1280, 1000), (390, 1000)
LOOKS = ((DESKTOP, "light", False), (DESKTOP, "dark", False), (PHONE, "light", False), (PHONE, "light", True))
SCALE, GAP = 0.5, 12
PORT = "27180"  # of the notebook's server
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def draw_kinds() -> None:
    """Draw strips and a report of pictures with masks and boxes, of recordings, and of series."""
    from gallery_data import kinds_of_examples

    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, browser() as running:
        for name, (scores, train, queries) in kinds_of_examples().items():
            figure = uw.StripDisplay.from_scores(scores, train, queries, queries.ids[:2].tolist(), k=2).figure_
            figure.savefig(FOLDER / f"strip_{name}.png", dpi=110)
            path = uw.write_report(Path(folder) / f"{name}.html", scores, train, queries)
            photograph(running, path.as_uri(), name)


def draw_notebook() -> None:
    """Draw a notebook of marimo, if it is installed: results, progress and the viewer in cells."""
    if find_spec("marimo") is None or find_spec("anywidget") is None:
        print("the notebook was not drawn: pip install marimo anywidget")
        return
    command = [sys.executable, "-m", "marimo", "run", "--headless", "--no-token", "--port", PORT]
    with subprocess.Popen([*command, str(DOCS / "gallery_notebook.py")], stdout=subprocess.DEVNULL) as server:
        try:
            address = f"http://127.0.0.1:{PORT}"
            wait_for(address)
            with browser() as running:
                page = running.new_page(viewport={"width": 1280, "height": 1600})
                page.goto(address)
                page.frame_locator("iframe").first.locator(".card").first.wait_for(timeout=120_000)
                page.get_by_text("labels to review").first.wait_for(timeout=120_000)
                page.wait_for_timeout(1000)
                picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            keep(picture.resize((640, 800), Image.Resampling.LANCZOS), "notebook")
        finally:
            server.terminate()


def wait_for(address: str) -> None:
    """Wait until a server answers. Raises TimeoutError after a minute."""
    for _ in range(120):
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(f"nothing answers at {address}")


def draw_grey(names: Sequence[str]) -> None:
    """Draw the figures once more in shades of grey, as they come out of a printer."""
    height, pictures = 300, []
    for name in names:
        picture = Image.open(FOLDER / f"{name}.png").convert("L")
        pictures.append(
            picture.resize((round(picture.width * height / picture.height), height), Image.Resampling.LANCZOS)
        )
    rows = [pictures[i : i + 3] for i in range(0, len(pictures), 3)]
    width = max(sum(picture.width for picture in row) for row in rows)
    sheet = Image.new("L", (width, height * len(rows)), 255)
    for line, row in enumerate(rows):
        left = 0
        for picture in row:
            sheet.paste(picture, (left, line * height))
            left += picture.width
    sheet.quantize(32).save(FOLDER / "figures_grey.png", optimize=True)


def draw_pages(chosen: Mapping[str, tuple[str, str]] = PAGES) -> None:
    """Draw these pages, and the page of an evaluation."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, browser() as running:
        for name, (page, result) in chosen.items():
            path = uw.write_page(Path(folder) / f"{name}.html", values_of(page, result)[result])
            photograph(running, path.as_uri(), name)
        if chosen is PAGES:
            values = values_of("evaluation.md", "flips", "curve", "table")
            path = Path(folder) / "evaluation.html"
            uw.write_evaluation(path, values["table"], curves={"influence": values["curve"]}, flips=values["flips"])
            photograph(running, path.as_uri(), "evaluation")


def values_of(page: str, *names: str) -> dict[str, Any]:
    """Run the code of a page of the documentation until it has set all of these names."""
    values: dict[str, Any] = {"__name__": "page"}
    for code in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
        with redirect_stdout(io.StringIO()):
            exec(compile(code, page, "exec"), values)
        if all(name in values for name in names):
            return values
    raise LookupError(f"expected {page} to set {', '.join(names)}")


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        opened = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield opened
        opened.close()


def photograph(running: Any, url: str, name: str, ready: str = "main") -> None:
    """Write the picture of a page: its looks side by side."""
    pictures = [look(running, url, ready, *settings) for settings in LOOKS]
    width = sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1)
    sheet = Image.new("RGB", (width, max(picture.height for picture in pictures)), "#8b9097")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + GAP
    keep(sheet, f"page_{name}")


def keep(picture: Image.Image, name: str) -> None:
    """Write a picture of a page, which as PNG would be three times as large."""
    picture.save(FOLDER / f"{name}.webp", quality=82, method=6)


def look(running: Any, url: str, ready: str, size: tuple[int, int], scheme: str, grey: bool) -> Image.Image:
    """One look at a page, reduced."""
    page = running.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page.goto(url)
    page.wait_for_selector(ready)
    page.wait_for_timeout(300)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("L" if grey else "RGB").convert("RGB")
    page.close()
    return picture.resize((round(SCALE * size[0]), round(SCALE * size[1])), Image.Resampling.LANCZOS)
