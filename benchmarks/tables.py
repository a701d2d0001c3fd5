"""What `publish.py` makes of each script's numbers: rows, columns and a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

Rows = list[dict[str, Any]]
OURS, PEER = "#e4572e", "#5b8db8"
"""Colours that stand out on white and on black."""


@dataclass(frozen=True)
class Table:
    """One table beside the peers."""

    name: str
    title: str
    says: str
    """What is to be read from it."""
    script: str
    options: tuple[str, ...]
    quick: tuple[str, ...]
    rows: Callable[[Any], Rows]
    """From the script's JSON."""
    columns: dict[str, tuple[str, str]]
    """Head ↦ (key of a row, format)."""
    picture: Callable[[Rows], Figure]


def groups(rows: Iterable[dict[str, Any]], *keys: str) -> dict[Any, Rows]:
    """Rows that agree in these keys, in order."""
    found: dict[Any, Rows] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found


def geometric(values: Iterable[float]) -> float:
    """Geometric mean of what is finite and positive."""
    kept = [v for v in values if v is not None and np.isfinite(v) and v > 0]
    return float(np.exp(np.mean(np.log(kept)))) if kept else float("nan")


def bars(rows: Rows, label: str, value: str, text: str, peers: str = "") -> Figure:
    """Horizontal bars from 1 on a logarithmic scale.

    Args:
        rows: a bar each.
        label, value: keys of what it is called and how long it is.
        text: of the axis.
        peers: labels with one of these words are not ours.
    """
    kept = [row for row in rows if row[value] is not None and np.isfinite(row[value])]
    figure, axes = plt.subplots(figsize=(6, 0.3 * len(kept) + 0.8))
    names = [str(row[label]) for row in kept]
    theirs = set(peers.split())
    colours = [PEER if theirs & set(name.split()) else OURS for name in names]
    lengths = [row[value] - 1 for row in kept]
    axes.barh(range(len(kept)), lengths, left=1, color=colours)
    axes.set_yticks(range(len(kept)), names)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="#808080", linewidth=0.8)
    axes.set_xlabel(text)
    return figure


# -- Bayesian models -------------------------------------------------------------------


def posterior_rows(found: Any) -> Rows:
    rows = []
    for (name,), of_it in groups(found, "posterior").items():
        ours = next(row for row in of_it if row["method"] == "ngvi")
        seconds = ours["compiling"] + ours["running"]
        for row in of_it:
            total = row["compiling"] + row["running"]
            rows.append(
                {
                    "posterior": name,
                    "method": row["method"],
                    "elbo": row["elbo"] - ours["elbo"],
                    "rms": row["mean_rms"],
                    "low": row["sd_low"],
                    "high": row["sd_high"],
                    "gradients": row["gradients"],
                    "seconds": total,
                    "ratio": total / seconds,
                }
            )
    return rows


def posterior_picture(rows: Rows) -> Figure:
    figure, sides = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    methods = groups(rows, "method")
    for axes, key in zip(sides, ("gradients", "seconds"), strict=True):
        axes.set(xscale="log", yscale="log", xlabel=f"{key}, geometric mean")
        axes.xaxis.set_minor_formatter(NullFormatter())
        points = [
            (geometric(r[key] for r in of_it), geometric(r["rms"] for r in of_it))
            for of_it in methods.values()
        ]
        for (method,), point in zip(methods, points, strict=True):
            axes.plot(*point, "o", color=OURS if method == "ngvi" else PEER)
        label(axes, [method for (method,) in methods], points)
    sides[1].set_xticks([1, 2, 5, 10], ["1", "2", "5", "10"])
    sides[0].set_ylabel("rms error of means, sds, geometric mean")
    return figure


def label(axes: Axes, names: list[str], points: list[tuple[float, float]]) -> None:
    """Names beside their points, from below, none upon one below it."""
    scale = 72 / axes.figure.dpi
    places = axes.transData.transform(points) * scale
    taken: list[tuple[float, float]] = []
    for i in np.argsort(places[:, 1]):
        x, y = places[i, 0] + 6, places[i, 1] - 3
        while any(abs(x - a) < 70 and abs(y - b) < 10 for a, b in taken):
            y += 1
        taken.append((x, y))
        offset = x - places[i, 0], y - places[i, 1]
        axes.annotate(names[i], points[i], offset, textcoords="offset points")


# -- verdicts and refinement -----------------------------------------------------------


def refined_rows(found: Any) -> Rows:
    rows = [row for row in found if "nuts_seconds" in row]
    return [row | {"ratio": row["seconds"] / row["nuts_seconds"]} for row in rows]


# -- black boxes -----------------------------------------------------------------------

BUDGETS = (100, 1_000, 10_000)
SOLVERS = ("ngvi", "pycma", "cmaes", "evosax")
BBOB = ("--multiplier", "10000", "--solvers", *SOLVERS)


def bbob_rows(found: Any) -> Rows:
    rows = []
    for (dim,), of_dim in groups(found, "dim").items():
        for budget in BUDGETS:
            row: dict[str, Any] = {"dim": dim, "budget": budget}
            for (solver,), of_it in groups(of_dim, "solver").items():
                hits = [hit for trial in of_it for hit in trial["hits"]]
                solved = [h is not None and h <= budget * dim for h in hits]
                row[solver] = float(np.mean(solved))
            rows.append(row)
    return rows


def bbob_picture(rows: Rows) -> Figure:
    by_dim = groups(rows, "dim")
    width = 2.2 * len(by_dim) + 1
    figure, sides = plt.subplots(
        1, len(by_dim), figsize=(width, 2.6), sharey=True, squeeze=False
    )
    for axes, ((dim,), of_dim) in zip(sides[0], by_dim.items(), strict=True):
        budgets = [row["budget"] for row in of_dim]
        for solver, mark in zip(SOLVERS, "os^v", strict=True):
            solved = [row.get(solver) for row in of_dim]
            colour = OURS if solver == "ngvi" else PEER
            axes.plot(budgets, solved, f"{mark}-", color=colour, label=solver)
        axes.set(xscale="log", xlabel="evaluations / D", title=f"D = {dim}")
    sides[0][0].set_ylabel("targets reached")
    sides[0][0].legend()
    return figure


# -- curvature, optimisers, nets, families ---------------------------------------------


PRODUCTS = ("ngvi fresh", "ngvi linearised once")
"""Whose least ratios, of the matrix products alone, a case's name tells."""


def fisher_rows(found: Any) -> Rows:
    rows = []
    for row in found:
        if "case" not in row:  # what programs need beside their results
            continue
        case, _, alone = row["case"].partition(", at least ")
        of_products = dict(zip(PRODUCTS, alone.split(" and "), strict=False))
        least = of_products.get(row["who"])
        label = f"{case}: {row['who']}"
        rows.append(row | {"case": case, "label": label, "least": least})
    return rows


def fisher_picture(rows: Rows) -> Figure:
    """Without the first of each case, and without the same in smaller batches."""
    seen: set[str] = set()
    kept = []
    for row in rows:
        if row["case"] in seen and "batch_size" not in row["who"]:
            kept.append(row)
        seen.add(row["case"])
    peers = "JAX kfac-jax torch curvlinops nngeometry asdl"
    return bars(kept, "label", "ratio", "time over that of the table's first", peers)


def steps_told(steps: Iterable[float | None]) -> str:
    return ", ".join("–" if s is None or s == np.inf else f"{s:.0f}" for s in steps)


def optimizer_rows(found: Any) -> Rows:
    rows = []
    for row in found:
        steps = steps_told(row["steps"])
        reached = np.isfinite(row["time"])
        changed = {"steps": steps, "time": row["time"] if reached else None}
        changed["label"] = f"{row['problem']}: {row['method']}"
        rows.append(row | changed)
    return rows


def net_rows(found: Any) -> Rows:
    rows = []
    for name, methods in found.items():
        ours = np.array(methods["ngvi"])[:, 0]
        for method, scores in methods.items():
            density, rmse, coverage, seconds = np.array(scores).T
            gain = density - ours[: len(density)]
            rows.append(
                {
                    "set": name,
                    "method": method,
                    "splits": len(density),
                    "density": float(density.mean()),
                    "gain": float(gain.mean()),
                    "error": float(gain.std(ddof=1) / len(gain) ** 0.5)
                    if len(gain) > 1
                    else float("nan"),
                    "rmse": float(rmse.mean()),
                    "coverage": float(coverage.mean()),
                    "seconds": float(seconds.mean()),
                }
            )
    return rows


def net_picture(rows: Rows) -> Figure:
    figure, axes = plt.subplots(figsize=(6, 3))
    names = list(dict.fromkeys(row["set"] for row in rows))
    others = list(dict.fromkeys(r["method"] for r in rows if r["method"] != "ngvi"))
    marks = dict(zip(others, "os^v", strict=False))
    for method in others:
        of_it = [row for row in rows if row["method"] == method]
        places = [names.index(row["set"]) for row in of_it]
        gains = [row["gain"] for row in of_it]
        errors = [row["error"] for row in of_it]
        style = {"fmt": marks[method], "color": PEER, "label": method}
        axes.errorbar(places, gains, yerr=errors, **style)
    axes.axhline(0, color=OURS)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("test log density less ours")
    axes.legend()
    return figure


def family_rows(found: Any) -> Rows:
    rows = []
    for (family,), of_it in groups(found, "family").items():
        by_batch = {
            f"×{batch}": geometric(row["ratio"][batch] for row in of_it)
            for batch in of_it[0]["ratio"]
        }
        exact = [row for row in of_it if not row["function"].endswith("sample")]
        worst = {
            side: max(row[f"error_{side}"][1] for row in exact)
            for side in ("ours", "theirs")
        }
        bad = {f"nan {s}": sum(r[f"nan_{s}"] for r in of_it) for s in worst}
        one, many = by_batch.values()
        rows.append({"family": family, "one": one, "many": many} | worst | bad)
    return rows


TABLES = {
    table.name: table
    for table in (
        Table(
            "posteriors",
            "Bayesian models",
            "Eleven posteriors with known answers. Every Gaussian method is held "
            "against the same reference: the rms error of the means and the range of "
            "sds, in reference sds; its ELBO less ours. All but ngvi, Pathfinder and "
            "NUTS had three learning rates, of which the best is shown. Where the "
            "posterior is no Gaussian (gp_poisson, seeds, radon) NUTS is the more "
            "accurate, of the sds above all. blackjax's mean field, a diagonal one, is "
            "the quickest: 2,000 steps of ten draws at once, and little to compile.",
            "posteriors.py",
            (),
            ("arK", "--methods", "ngvi", "Laplace", "Pathfinder"),
            posterior_rows,
            {
                "posterior": ("posterior", ""),
                "method": ("method", ""),
                "ELBO − ours, nats": ("elbo", ".3g"),
                "rms error of means": ("rms", ".3f"),
                "smallest sd": ("low", ".2f"),
                "largest sd": ("high", ".2f"),
                "gradients": ("gradients", ",d"),
                "seconds": ("seconds", ".1f"),
                "seconds over ours": ("ratio", ".2f"),
            },
            posterior_picture,
        ),
        Table(
            "refinement",
            "Refined answers",
            "`posterior.refine()` beside NUTS with 4 × (1,000 + 1,000) draws. Where "
            "a Gaussian or its reweighted draws do it is the quicker; where it goes on "
            "to a mixture or to NUTS, NUTS alone is.",
            "refinement.py",
            (),
            ("arK",),
            refined_rows,
            {
                "posterior": ("row", ""),
                "last rung": ("rung", ""),
                "verdict": ("verdict", ""),
                "rms error of means": ("mean_rms", ".3f"),
                "largest error of an sd": ("sd_max", ".1%"),
                "the same by NUTS": ("nuts_sd_max", ".1%"),
                "seconds": ("seconds", ".1f"),
                "over NUTS's": ("ratio", ".2f"),
            },
            lambda rows: bars(
                rows, "row", "ratio", "seconds over NUTS's (below 1: quicker)"
            ),
        ),
        Table(
            "black_boxes",
            "Black boxes",
            "COCO's 24 BBOB functions, default settings of all: the fraction of 51 "
            "targets reached within so many evaluations a dimension. pycma restarts "
            "by BIPOP, cmaes with twice the population; evosax has no restarts, which "
            "it was not written for. pycma is ahead on the multimodal functions "
            "of three dimensions, and its evaluations cost less time (see the guide).",
            "bbob.py",
            (*("--dims", "3", "5", "10"), *BBOB),
            ("--dims", "3", *BBOB, "--functions", "1", "8", "--instances", "1"),
            bbob_rows,
            {
                "D": ("dim", ""),
                "evaluations / D": ("budget", ",d"),
            }
            | {solver: (solver, ".3f") for solver in SOLVERS},
            bbob_picture,
        ),
        Table(
            "fisher",
            "Curvature",
            "The same matrix or product by each library, by turns in one process: "
            "milliseconds, and the ratio to the first line of its case; of "
            "products with F also the least that the matrix products alone would take. "
            "kfac-jax's product costs what our first one does; where F is used again, "
            "as in `solve`, ours is linearised once. The small network's factors are a "
            "tenth quicker written out by hand: 0.03 ms a call.",
            "fisher.py",
            ("--parts", "products", "dense", "factors"),
            ("--parts", "dense", "--seconds", "2", "--peers"),
            fisher_rows,
            {
                "case": ("case", ""),
                "by": ("who", ""),
                "ms": ("milliseconds", ".2f"),
                "over the first": ("ratio", ".2f"),
                "at least": ("least", ""),
                "first call, s": ("first_call", ".2f"),
            },
            fisher_picture,
        ),
        Table(
            "optimizers",
            "Optimisers",
            "Steps to the loss that Adam has at the end at its best learning rate, and "
            "the time to it over that of all of Adam's steps; a grid of five numbers "
            "for each method. On the small classifier Adam is the faster: there a step "
            "of curvature costs several gradients and saves too few steps.",
            "optimizers.py",
            (),
            ("--problems", "classifier", "--methods", "kfac", "--seeds", "1"),
            optimizer_rows,
            {
                "problem": ("problem", ""),
                "method": ("method", ""),
                "steps to Adam's loss": ("steps", ""),
                "a step over Adam's": ("a step", ".2f"),
                "time over Adam's": ("time", ".2f"),
                "compiling, s": ("compile", ".1f"),
            },
            lambda rows: bars(
                rows, "label", "time", "time over Adam's", "adam nesterov muon"
            ),
        ),
        Table(
            "kfac",
            "K-FAC beside kfac-jax",
            "A deep autoencoder, all images at every step, down to the loss that Adam "
            "has after 600 steps; both adapt learning rate, momentum and damping. With "
            "all rows for its factors ours does the same work; with some of them a "
            "step costs less. kfac-jax 0.0.8 fails with JAX 0.9.2 and later.",
            "optimizers_peers.py",
            (),
            ("--seeds", "1", "--steps", "20", "--rounds", "1"),
            lambda found: [r | {"steps": steps_told(r["steps"])} for r in found],
            {
                "method": ("method", ""),
                "steps to Adam's loss": ("steps", ""),
                "a step, ms": ("milliseconds", ".1f"),
                "over Adam's": ("a step", ".2f"),
                "time over Adam's": ("time", ".2f"),
                "compiling, s": ("compile", ".1f"),
            },
            lambda rows: bars(
                rows, "method", "time", "time over Adam's", "adam kfac-jax"
            ),
        ),
        Table(
            "nets",
            "Bayesian nets",
            "UCI's small regression sets: the mean log density of test rows, in the "
            "target's units; `BayesianMLPRegressor()` as it comes, a Gaussian process "
            "and five nets. On wine the process finds test rows that repeat rows of "
            "training and calls all noise nothing; its errors are no smaller. A fit of "
            "ours takes the longest but for the process on the larger sets; the five "
            "nets' intervals hold too little on three sets.",
            "uci_prediction.py",
            ("--splits", "5"),
            ("--sets", "yacht", "--splits", "1"),
            net_rows,
            {
                "set": ("set", ""),
                "method": ("method", ""),
                "splits": ("splits", "d"),
                "log density": ("density", ".3f"),
                "less ours": ("gain", "+.3f"),
                "± of that": ("error", ".3f"),
                "RMSE": ("rmse", ".3f"),
                "90 % intervals hold": ("coverage", ".1%"),
                "seconds": ("seconds", ".1f"),
            },
            net_picture,
        ),
        Table(
            "families",
            "Exponential families",
            "How many times as fast as efax each family is (geometric mean over its "
            "functions and their gradients, float32), of one member and of 100,000; "
            "and the largest error of any function. A Dirichlet family of 30 classes "
            "is left out: efax's inverse of its means takes half an hour. At the worst "
            "members of Beta and VonMisesFisher-3 efax errs less.",
            "families.py",
            (),
            ("Gamma",),
            family_rows,
            {
                "family": ("family", ""),
                "times as fast, one": ("one", ".2f"),
                "times as fast, 100,000": ("many", ".2f"),
                "largest error, ours": ("ours", ".0e"),
                "efax's": ("theirs", ".0e"),
                "NaN, ours": ("nan ours", "d"),
                "efax's NaN": ("nan theirs", "d"),
            },
            lambda rows: bars(
                rows, "family", "many", "times as fast as efax, 100,000 members"
            ),
        ),
    )
}
