"""The layers of a network as a table to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ngvi.fisher.layers.layer import Layer

if TYPE_CHECKING:
    from ngvi.fisher.layers.network import Network

HEADER = ("layer", "kind", "parameters", "shapes", "W", "positions")


def table(network: Network, structures: Sequence[str] = ()) -> str:
    """What `Network.explain` says.

    Args:
        network: to be explained.
        structures: what each layer, then each leaf of the rest got; none if unknown.
    """
    rows = [HEADER, *(_row(network, layer) for layer in network.layers)]
    if structures:
        column = ["structure", *structures[: len(network.layers)]]
        rows = [(*row, cell) for row, cell in zip(rows, column, strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    if network.rest:
        lines += ["", "in no layer:"]
    of_rest = structures[len(network.layers) :] or [""] * len(network.rest)
    leaves = zip(network.rest, network.reasons, of_rest, strict=True)
    for leaf, reason, structure in leaves:
        name, shape = network.names[leaf] or "params", _times(network.shapes[leaf])
        got = f"{structure}, because " if structure else ""
        lines.append(f"  {name} ({shape}): {got}{reason}")
    return "\n".join(line.rstrip() for line in lines)


def _row(network: Network, layer: Layer) -> tuple[str, ...]:
    names = [_within(layer.name, network.names[leaf]) for leaf in layer.leaves]
    return (
        layer.name or "params",
        layer.kind,
        ", ".join(names),
        ", ".join(map(_times, layer.shapes)),
        f"{layer.inputs} × {layer.outputs}",
        str(layer.positions),
    )


def _within(layer: str, name: str) -> str:
    return name.removeprefix(layer + "/") or "params"


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "a number"
