"""From a traced computation to the layers that make it up.

Every parameter is followed from the top of the graph to the equations that use it. A
leaf is a layer's kernel if each of its uses is one in the same matrix; a leaf that is
only added is the bias of the layer whose outputs it is added to, if nothing else reads
those, or else a layer of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np

from ngvi.fisher.layers.match import match
from ngvi.fisher.layers.sequel import added_leaf, multiplied
from ngvi.fisher.layers.trace import Atom, Equation, Graph, Loop, Value
from ngvi.fisher.layers.use import Use
from ngvi.fisher.layers.views import Shape, View, follow

Path = tuple[Equation, ...]

ELEMENTWISE = ("add", "sub", "mul")
UNUSED = "the outputs do not depend on it"


@dataclass(frozen=True, eq=False)
class Touch:
    """A parameter's use at the end of `path`: loops, then the equation that is it."""

    path: Path
    use: Use
    bias: tuple[int, Equation, float] | None = None

    @property
    def turns(self) -> int:
        return math.prod(loop.params["length"] for loop in self.path[:-1])

    @property
    def positions(self) -> int:
        return self.turns * self.use.positions


@dataclass(frozen=True)
class Found:
    """A layer: its kernel's uses (or a lone bias's) and the leaves it covers."""

    kernel: int | None
    bias: int | None
    touches: tuple[Touch, ...]

    @property
    def leaves(self) -> tuple[int, ...]:
        return tuple(leaf for leaf in (self.kernel, self.bias) if leaf is not None)


@dataclass
class Search:
    """What is known about every leaf while a graph is walked."""

    shapes: Sequence[Shape]
    touches: dict[int, list[Touch]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)

    def refuse(self, view: View, reason: str) -> None:
        self.reasons.setdefault(view.leaf, reason)


def find(
    graph: Graph, shapes: Sequence[Shape]
) -> tuple[tuple[Found, ...], dict[int, str]]:
    """The layers of a graph whose first inputs are the parameters, and why not others.

    Args:
        graph: of one example.
        shapes: of the leaves of the parameters.

    Returns:
        Layers in the order of evaluation; the reason for every leaf in none of them.
    """
    search = Search(shapes)
    views: dict[Atom, View] = {}
    for leaf, (value, shape) in enumerate(zip(graph.inputs, shapes, strict=False)):
        views[value] = View(leaf, shape, shape)
        if not jnp.issubdtype(value.dtype, jnp.floating):
            search.reasons[leaf] = f"holds {value.dtype}, no real numbers"
    _walk(graph, views, set(graph.inputs[len(shapes) :]), (), search)
    return _layers(search)


def _walk(
    graph: Graph, views: dict[Atom, View], data: set[Value], path: Path, search: Search
) -> None:
    """Follow the views through a graph; `data` are the values the example reaches."""
    uses: list[tuple[Equation, Use]] = []
    for equation in graph.relevant:
        from_data = not data.isdisjoint(equation.inputs)
        if from_data:
            data.update(equation.outputs)
        operands = [i for i, atom in enumerate(equation.inputs) if atom in views]
        if equation.body is not None:
            _enter(equation, views, data, path, search)
        elif len(operands) > 1:
            for operand in operands:
                reason = f"meets another parameter in `{equation.name}`"
                search.refuse(views[equation.inputs[operand]], reason)
        elif operands:
            (operand,) = operands
            view = views[equation.inputs[operand]]
            moved = follow(equation, operand, view)
            if moved is not None:
                views[equation.outputs[0]] = moved
                continue
            use: Use | str
            if equation.name in ELEMENTWISE and not from_data and _is_matrix(view):
                # A vector scales or shifts wherever it meets numbers (a batch norm's
                # statistics, say); a masked or sampled matrix is no scale of so many.
                use = f"changed by `{equation.name}` before it meets data"
            else:
                use = match(equation, operand, view)
            if isinstance(use, str):
                search.refuse(view, use)
            else:
                uses.append((equation, use))
                search.touches.setdefault(view.leaf, [])  # in the order of the graph
    for atom in graph.outputs:
        if atom in views:
            reason = "carried out of a loop (`scan`)" if path else "itself an output"
            search.refuse(views[atom], reason)
    readers = graph.readers()
    for equation, use in uses:
        equation, use = multiplied(equation, use, readers, views)
        bias = added_leaf(equation, use, readers, views)
        touch = Touch((*path, equation), use, bias)
        search.touches[use.leaf].append(touch)


def _enter(
    scan: Equation,
    views: dict[Atom, View],
    data: set[Value],
    path: Path,
    search: Search,
) -> None:
    """Follow the views into a loop, where what does not change keeps its numbers."""
    assert scan.body is not None
    loop = Loop.of(scan)
    inner_views: dict[Atom, View] = {}
    inner_data: set[Value] = set()
    from_data = not data.isdisjoint(scan.inputs)
    pairs = zip(scan.inputs, scan.body.inputs, strict=True)
    for place, (outer, inner) in enumerate(pairs):
        constant = place < loop.constants
        if outer in views and constant:
            inner_views[inner] = views[outer]
        elif outer in views and place < loop.constants + loop.carry:
            search.refuse(views[outer], "starts the carry of a loop (`scan`)")
        elif outer in views:
            reason = "a loop (`scan`) runs over it, each turn using a slice"
            search.refuse(views[outer], reason)
        if outer in data or (from_data and not constant):
            inner_data.add(inner)
    _walk(scan.body, inner_views, inner_data, (*path, scan), search)


def _layers(search: Search) -> tuple[tuple[Found, ...], dict[int, str]]:
    reasons = dict(search.reasons)
    for leaf, shape in enumerate(search.shapes):
        if leaf in reasons:
            continue
        touches = search.touches.get(leaf, [])
        if not touches:
            reasons[leaf] = UNUSED
        elif not all(_alike(touches[0].use, t.use, shape) for t in touches):
            ways = dict.fromkeys(_words(touch.use) for touch in touches)
            reasons[leaf] = "used in several ways: " + ", ".join(ways)
    usable = {k: v for k, v in search.touches.items() if k not in reasons}
    biases: dict[int, int] = {}
    for leaf, touches in usable.items():
        bias = _shared_bias(touches, usable)
        if bias is not None and bias not in biases.values():
            biases[leaf] = bias
    found = []
    for leaf, touches in usable.items():
        if touches[0].use.kind != "shift":
            found.append(Found(leaf, biases.get(leaf), tuple(touches)))
        elif leaf not in biases.values():
            found.append(Found(None, leaf, tuple(touches)))
    return tuple(found), reasons


def _shared_bias(touches: list[Touch], usable: dict[int, list[Touch]]) -> int | None:
    """The bias that all uses of a kernel add and that is used nowhere else."""
    if any(touch.bias is None for touch in touches):
        return None
    leaves = {touch.bias[0] for touch in touches if touch.bias is not None}
    sums = {touch.bias[1] for touch in touches if touch.bias is not None}
    (leaf, *others) = leaves
    if others or leaf not in usable:
        return None
    return leaf if {touch.path[-1] for touch in usable[leaf]} == sums else None


def _alike(first: Use, second: Use, shape: Shape) -> bool:
    """Whether two uses of a leaf are layers in the same matrix."""
    if first.kind != second.kind or first.rows != second.rows:
        return False
    if first.moves == second.moves:
        return True
    one, other = (View(0, shape, shape, use.moves).places() for use in (first, second))
    return np.array_equal(one, other)


def _words(use: Use) -> str:
    if use.kind in ("shift", "scale_shift"):
        return f"{use.kind} of {use.outputs}"
    return f"{use.kind} {use.rows} → {use.outputs}"


def _is_matrix(view: View) -> bool:
    return sum(size > 1 for size in view.origin) > 1
