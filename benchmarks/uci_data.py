"""UCI's small regression sets, with the splits of Hernández-Lobato and Adams (2015).

They are read from a folder with one `.npz` file for each, of x, y, the rows of each
split (`perm`, those of the training first), and how many those are (`n_train`):
by default `shared/data/uci` beside the repository, or in the folder that NGVI_SHARED
names.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

SETS = ("boston", "concrete", "energy", "wine-red", "yacht")


class Split(NamedTuple):
    """In the data's units."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    seed: int
    """Which it is."""


def add_arguments(parser: argparse.ArgumentParser, splits: int) -> None:
    """--data, --sets, and --splits with this default."""
    beside = Path(__file__).resolve().parents[1].parent / "shared"
    folder = Path(os.environ.get("NGVI_SHARED") or beside) / "data" / "uci"
    parser.add_argument("--data", type=Path, default=folder)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--splits", type=int, default=splits)


def load(folder: Path, name: str, count: int) -> list[Split]:
    """The first splits of a set; none, and a line that says so, if it is not there."""
    if not (folder / f"{name}.npz").exists():
        print(f"{name}: not in {folder}, skipped")
        return []
    data = np.load(folder / f"{name}.npz")
    splits = []
    for seed in range(count):
        rows, n = data["perm"][seed].astype(int), data["n_train"][seed]
        train, test = rows[:n], rows[n:]
        x, y = data["x"], data["y"]
        splits.append(Split(x[train], y[train], x[test], y[test], seed))
    return splits
