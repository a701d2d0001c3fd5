"""Evaluate a graph, adding to its layers' outputs and noting their inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jax import lax
from jaxtyping import Array, Float

from ngvi.fisher.layers.find import Touch
from ngvi.fisher.layers.trace import Atom, Constant, Equation, Graph, Loop, Value

Shifts = Mapping[Touch, Float[Array, "positions outputs"]]


def evaluate(
    graph: Graph, arguments: Sequence[Array], shifts: Shifts, depth: int = 0
) -> tuple[list[Array], dict[Touch, Array]]:
    """The outputs, and the inputs (as the use's `rows_of` has them) of every touch.

    Args:
        graph: the computation, or at `depth` loops inside it the body of the next.
        arguments: the values of its inputs.
        shifts: what to add to the outputs z of each touch, for all turns of the loops.
    """
    here: dict[Equation, dict[Touch, Array]] = {}
    for touch, shift in shifts.items():
        here.setdefault(touch.path[depth], {})[touch] = shift
    known: dict[Value, Array] = dict(zip(graph.inputs, arguments, strict=True))

    def read(atom: Atom) -> Array:
        return atom.value if isinstance(atom, Constant) else known[atom]

    noted: dict[Touch, Array] = {}
    for equation in graph.equations:
        values = [read(atom) for atom in equation.inputs]
        touched = here.get(equation, {})
        if touched and equation.body is not None:
            results, inputs = _loop(equation, values, touched, depth)
            noted.update(inputs)
        else:
            results = equation.bind(values)
            for touch, shift in touched.items():
                noted[touch] = touch.use.rows_of(read)
                results[0] += touch.use.spread(shift).astype(results[0].dtype)
        known.update(zip(equation.outputs, results, strict=True))
    return [read(atom) for atom in graph.outputs], noted


def _loop(
    scan: Equation, values: Sequence[Array], shifts: Shifts, depth: int
) -> tuple[list[Array], dict[Touch, Array]]:
    """A `scan` that runs over the shifts too and stacks the inputs of its layers."""
    assert scan.body is not None
    body, loop, params = scan.body, Loop.of(scan), scan.params
    length, touches = params["length"], list(shifts)
    ends = (loop.constants, loop.constants + loop.carry)
    constants, carry, over = (
        list(values[: ends[0]]),
        list(values[ends[0] : ends[1]]),
        list(values[ends[1] :]),
    )
    by_turn = [_split(shift, length) for shift in shifts.values()]

    def turn(
        carry: list[Array], slices: tuple[list[Array], list[Array]]
    ) -> tuple[list[Array], tuple[list[Array], list[Array]]]:
        over, shifts = slices
        added = dict(zip(touches, shifts, strict=True))
        arguments = [*constants, *carry, *over]
        outputs, noted = evaluate(body, arguments, added, depth + 1)
        inputs = [noted[touch] for touch in touches]
        return outputs[: loop.carry], (outputs[loop.carry :], inputs)

    carry, (stacked, inputs) = lax.scan(
        turn,
        carry,
        (over, by_turn),
        length=length,
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    joined = [array.reshape(-1, *array.shape[2:]) for array in inputs]
    return [*carry, *stacked], dict(zip(touches, joined, strict=True))


def _split(shift: Array, length: int) -> Array:
    """The share of every turn: (length, positions of one, outputs)."""
    return shift.reshape(length, shift.shape[0] // max(length, 1), shift.shape[1])
