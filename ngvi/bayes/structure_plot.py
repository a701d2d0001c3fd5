"""A picture of a precision's pattern."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ngvi.extras import extra
from ngvi.linalg import Chain, Tree

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ngvi.bayes.structure import Structure

# Blocks drawn one by one; of more, a picture shows a band.
_DRAWN = 60
_COLOURS = ("#3b6ea5", "#c5743b", "#4d8b57", "#8a5a9b", "#a34b57", "#6b6b6b")


def plot(structure: Structure, ax: Axes | None = None) -> Any:
    """The pattern, blocks before what they stand on; returns the figure."""
    with extra("plots", "structure.plot()"):
        import matplotlib.pyplot as plt
        from matplotlib.patches import Patch

    if ax is None:
        _, ax = plt.subplots(figsize=(5, 5), layout="constrained")
    dim = structure.dim
    handles = []
    if structure.steps is not None:
        names = ["chain", "border"] if structure.steps.chain.rest else ["chain"]
        _draw_chain(ax, structure.steps.chain)
        for name, colour in zip(names, _COLOURS, strict=False):
            handles.append(Patch(color=colour, label=name))
    elif structure.plates is None or structure.tree is None:
        if structure.covariance != "diagonal":
            rank = structure.rank
            label = "all coordinates" if rank is None else f"in {rank} directions"
            colour = _COLOURS[0 if rank is None else 1]
            _rectangles(ax, 0, dim, 0, dim, 1, colour)
            handles.append(Patch(color=colour, label=label))
        if structure.covariance != "full":
            _band(ax, 0, dim, 0, dim, dim, _COLOURS[0])
            label = "each coordinate by itself"
            handles.append(Patch(color=_COLOURS[0], label=label))
    else:
        names = [" × ".join(group.plates) for group in structure.plates.groups]
        if structure.plates.border.pieces:
            names.insert(0, "border")
        _draw_tree(ax, structure.tree)
        for k, name in enumerate(names):
            handles.append(Patch(color=_COLOURS[k % len(_COLOURS)], label=name))
    ax.set(xlim=(0, dim), ylim=(dim, 0), aspect="equal")
    ax.set_title(f"precision of {dim:,d} coordinates", fontsize=10)
    ax.legend(handles=handles, loc="upper right", fontsize=8)
    return ax.figure


def _draw_chain(ax: Axes, chain: Chain) -> None:
    n, b = chain.count, chain.size
    whole, dim = n * b, chain.dim
    _rectangles(ax, 0, whole, 0, whole, n, _COLOURS[0])
    if n > 1:
        # Each block with the next one, and the other way.
        _rectangles(ax, 0, whole - b, b, whole, n - 1, _COLOURS[0])
        _rectangles(ax, b, whole, 0, whole - b, n - 1, _COLOURS[0])
    if chain.rest:
        _rectangles(ax, 0, dim, whole, dim, 1, _COLOURS[1])
        _rectangles(ax, whole, dim, 0, whole, 1, _COLOURS[1])


def _draw_tree(ax: Axes, tree: Tree) -> None:
    sizes = [level.count * level.size for level in tree.levels]
    # Leaves first, the border last.
    ends = np.cumsum(sizes[::-1])[::-1]
    starts = ends - sizes
    for k, (level, chain) in enumerate(zip(tree.levels, tree.chains, strict=True)):
        colour = _COLOURS[k % len(_COLOURS)]
        for a in chain:
            count = tree.levels[a].count if a != k else level.count
            for rows, columns in {(a, k), (k, a)}:
                box = (starts[columns], ends[columns], starts[rows], ends[rows])
                _rectangles(ax, *box, count, colour)


def _rectangles(
    ax: Axes, left: float, right: float, top: float, bottom: float, n: int, colour: str
) -> None:
    """n equal rectangles down the diagonal of a box, or a band in place of many."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    if n > _DRAWN:
        _band(ax, left, right, top, bottom, n, colour)
        return
    width, height = (right - left) / n, (bottom - top) / n
    boxes = [
        Rectangle((left + i * width, top + i * height), width, height) for i in range(n)
    ]
    ax.add_collection(PatchCollection(boxes, color=colour, linewidth=0.5))


def _band(
    ax: Axes, left: float, right: float, top: float, bottom: float, n: int, colour: str
) -> None:
    ax.plot([left, right], [top, bottom], color=colour, linewidth=2.0)
