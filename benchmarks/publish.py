"""The tables beside the peers, run and written for the documentation: `make bench`.

    python benchmarks/publish.py [TABLE ...] [--folder docs/results] [--quick]

Every table is one script's run, in a process of its own: ours and the peers' side by
side. Its summary is written as NAME.md (a table and a picture, with the date, versions
and kind of machine) and NAME.json (the rows), and a picture NAME.svg. All of them take
hours; --quick runs a small part, to see that it works, and --redraw runs nothing and
writes pages and pictures from the JSON that is there. A peer that is not installed is
left out, and the header's versions say which are there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
from tables import TABLES, Table

HERE = Path(__file__).parent
PACKAGES = (
    "ngvi",
    "jax",
    "numpyro",
    "optax",
    "blackjax",
    "cma",
    "cmaes",
    "evosax",
    "efax",
)
PACKAGES += (
    "kfac-jax",
    "curvlinops-for-pytorch",
    "nngeometry",
    "torch",
    "scikit-learn",
)
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ngvi",
    "savefig.transparent": True,
    "font.size": 9,
    # One grey that can be read on white and on black.
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color"), "#808080"
    ),
    "ytick.color": "#808080",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def machine() -> str:
    """Its kind, as far as Python knows it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    kind = f"{cores} core{'s' * (cores != 1)} of {platform.machine()}"
    return f"{kind}, {memory:.0f} GiB, {sys.platform}"


def versions() -> str:
    """Of Python and of the packages that are there."""
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def run(table: Table, quick: bool) -> Any:
    """What the script has written as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        options = table.quick if quick else table.options
        command = [sys.executable, HERE / table.script, *options, "--out", out]
        # Threads of LAPACK that wait for each other would be what is measured.
        subprocess.run(
            command, check=True, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"}
        )
        return json.loads(out.read_text())


def markdown(table: Table, found: dict[str, Any]) -> str:
    """The page of a table."""
    head = list(table.columns)
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for row in found["rows"]:
        cells = [shown(row.get(key), form) for key, form in table.columns.values()]
        lines.append(" | ".join(cells))
    body = "\n".join(f"| {line} |" for line in lines)
    made = "`{command}`, {date}: {machine}; {versions}.".format_map(found)
    return (
        f"# {table.title}\n\n{table.says}\n\n![{table.title}]({table.name}.svg)\n\n"
        f"{body}\n\n{made}\n"
    )


def shown(value: Any, form: str) -> str:
    """A cell; a dash for what is missing or no number."""
    if value is None or value != value:
        return "–"
    return format(value, form)


def measure(table: Table, quick: bool) -> dict[str, Any]:
    """The rows, and where they come from."""
    options = table.quick if quick else table.options
    return {
        "machine": machine(),
        "versions": versions(),
        "command": " ".join(["python", f"benchmarks/{table.script}", *options]),
        "date": f"{date.today():%Y-%m-%d}",
        "rows": table.rows(run(table, quick)),
    }


def draw(table: Table, folder: Path) -> None:
    """The page and the picture, from the JSON."""
    found = json.loads((folder / f"{table.name}.json").read_text())
    (folder / f"{table.name}.md").write_text(markdown(table, found))
    with plt.rc_context(STYLE):
        figure = table.picture(found["rows"])
        path = folder / f"{table.name}.svg"
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--folder", type=Path, default=HERE.parent / "docs" / "results")
    parser.add_argument("--quick", action="store_true", help="a small part of each")
    parser.add_argument("--redraw", action="store_true", help="from the JSON there")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    unknown = sorted(set(options.tables) - TABLES.keys())
    if unknown:
        parser.error(f"no table {', '.join(unknown)}: there are {', '.join(TABLES)}")
    failed = []
    for name in options.tables or TABLES:
        print(f"\n== {name}", flush=True)
        try:
            if not options.redraw:
                found = measure(TABLES[name], options.quick)
                path = options.folder / f"{name}.json"
                path.write_text(json.dumps(found, indent=1))
            draw(TABLES[name], options.folder)
        except subprocess.CalledProcessError:
            failed.append(name)  # as without its peer; the others go on
    if failed:
        sys.exit(f"Not made: {', '.join(failed)}. What their scripts said is above.")


if __name__ == "__main__":
    main()
