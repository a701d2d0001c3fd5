"""The layers of a network as a table to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ngvi.fisher.layers.layer import Layer

if TYPE_CHECKING:
    from ngvi.fisher.layers.network import Network

HEADER = ("layer", "kind", "parameters", "shapes", "W", "positions", "structure")


def table(network: Network) -> str:
    """What `Network.explain` says."""
    rows = [HEADER, *(_row(network, layer) for layer in network.layers)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    if network.rest:
        lines += ["", "in no layer:"]
    for leaf, reason in zip(network.rest, network.reasons, strict=True):
        name, shape = network.names[leaf] or "params", _times(network.shapes[leaf])
        lines.append(f"  {name} ({shape}): {reason}")
    return "\n".join(line.rstrip() for line in lines)


def _row(network: Network, layer: Layer) -> tuple[str, ...]:
    names = [_within(layer.name, network.names[leaf]) for leaf in layer.leaves]
    sizes = f"{layer.inputs} × {layer.outputs}"
    if layer.kind == "scale_shift":
        structure = f"{layer.outputs} blocks of {layer.inputs} × {layer.inputs}"
    elif layer.kind == "embedding":
        structure = f"diagonal {layer.inputs} ⊗ {layer.outputs}"
    else:
        structure = f"Kronecker {layer.inputs} ⊗ {layer.outputs}"
    return (
        layer.name or "params",
        layer.kind,
        ", ".join(names),
        ", ".join(map(_times, layer.shapes)),
        sizes,
        str(layer.positions),
        structure,
    )


def _within(layer: str, name: str) -> str:
    return name.removeprefix(layer + "/") or "params"


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "a number"
