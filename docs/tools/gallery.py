"""Makes docs/gallery.md and its pictures by running the examples.

    python docs/tools/gallery.py           all, one after the other: half an hour
    python docs/tools/gallery.py topics    some; of the others the last run is kept
    python docs/tools/gallery.py missing   those that the page has no run of

Title and text of an entry are from the example's docstring; below is what it drew, made
small, and what it printed. Nothing is written by hand but the sections, here.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGE, PICTURES = DOCS / "gallery.md", DOCS / "pictures" / "gallery"
MOST_BYTES = 50_000

SECTIONS = {
    "Posteriors": (
        "raw_units verdict log_density many_groups stochastic_volatility "
        "site_families updating_day_by_day topics robust_processes"
    ),
    "Black boxes": "fit_ode tune_svm cartpole discrete_design",
    "The Fisher matrix": (
        "natural_gradient invariance parameterization three_fishers "
        "fisher_or_hessian kfac_blocks fisher_costs small_tables"
    ),
    "Bayesian nets": (
        "bayesian_net_gaps diabetes_net digits_calibration pruning "
        "continual_learning thompson_sampling active_learning transformer_averaging"
    ),
    "Optimisers and policies": (
        "deep_autoencoder convolutions_by_kfac letters_by_soap digits_vae ring_gan "
        "policy_gradients swing_up"
    ),
}
FOLDED = "<details markdown><summary>What it prints</summary>"
HEAD = """\
# Gallery

<!-- Made by docs/tools/gallery.py, which runs the examples; edits here are lost. -->

Every example is a file of one or two hundred lines that runs by itself, as
`python examples/NAME.py`, most in less than a minute on an idle processor. The times
that they print here are those of two busy cores.
"""


def run(name: str) -> str:
    """Run an example; keep its picture and return what it printed."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "examples" / f"{name}.py")]
        started = time.perf_counter()
        ran = subprocess.run(
            command, cwd=folder, env=env, text=True, check=True, stdout=subprocess.PIPE
        )
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
        for picture in Path(folder).glob("out/*.png"):
            keep(picture, PICTURES / f"{name}.webp")
    return ran.stdout.strip("\n")


def keep(drawn: Path, kept: Path) -> None:
    """A picture, in the largest size and best quality that have few bytes."""
    from PIL import Image

    image = Image.open(drawn).convert("RGB")
    for width, quality in product((1000, 800, 600), (75, 50, 30)):
        size = width, round(image.height * width / image.width)
        smaller = image.resize(size, Image.Resampling.LANCZOS)
        smaller.save(kept, quality=quality, method=6)
        if kept.stat().st_size < MOST_BYTES:
            return
    raise ValueError(f"{kept.name} has {kept.stat().st_size:,d} bytes.")


def prose(paragraphs: list[str]) -> str:
    """The first that is neither formula nor list, up to its last whole sentence."""
    for text in paragraphs:
        if not re.match(r"\s|\d\.|Source", text):
            whole = re.match(r".*\.(?=\s|$)", text, re.DOTALL)
            return whole.group() if whole else ""
    return ""


def entry(name: str, printed: str | None) -> str:
    """What the page says of an example."""
    source = (ROOT / "examples" / f"{name}.py").read_text()
    title, *paragraphs = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")
    title = " ".join(title.split()).rstrip(".")
    heading, _, rest = title.partition(": ")
    if rest:
        rest = f"{rest[0].upper()}{rest[1:]}."
    picture = f"pictures/gallery/{name}.webp"
    drawn = f"![{title}]({picture})" if (DOCS / picture).exists() else ""
    code = f"[{name}.py](../examples/{name}.py)"
    told = "" if printed is None else f"```text\n{printed}\n```"
    if told and drawn:  # the picture says most of it
        told = f"{FOLDED}\n\n{told}\n\n</details>"
    # The last paragraph is the command.
    text = f"{rest}\n{prose(paragraphs[:-1])}".strip()
    parts = f"### {heading}", text, drawn, code, told
    return "\n\n".join(part for part in parts if part)


def write(printed: dict[str, str]) -> None:
    """The page, from what has been printed so far."""
    parts = [HEAD]
    for section, names in SECTIONS.items():
        entries = (entry(name, printed.get(name)) + "\n" for name in names.split())
        parts += [f"## {section}\n", *entries]
    PAGE.write_text("\n".join(parts))


def earlier() -> dict[str, str]:
    """What the page says that the examples printed when they ran last."""
    entries = PAGE.read_text().split("\n### ") if PAGE.exists() else []
    told = re.compile(r"examples/(\w+)\.py\).*?```text\n(.*?)\n```", re.DOTALL)
    return dict(found.groups() for found in map(told.search, entries) if found)


def main(chosen: list[str]) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    printed = earlier()
    names = [name for section in SECTIONS.values() for name in section.split()]
    if chosen == ["missing"]:
        names = [name for name in names if name not in printed]
    for name in names if chosen in ([], ["missing"]) else chosen:
        printed[name] = run(name)
        write(printed)


if __name__ == "__main__":
    main(sys.argv[1:])
