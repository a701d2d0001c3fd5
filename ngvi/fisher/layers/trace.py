"""One example's computation as a flat list of equations.

`jax.make_jaxpr` writes a function down as equations between variables. Functions that
were compiled (`jit`) or rematerialised on their own are nested in it and their
variables repeat with every call; here they are spelled out in place, each value an
object of its own. Three things stay as they are: a loop (`scan`), whose body is a graph
again, a function with a derivative of its own (`custom_jvp`, `custom_vjp`), which would
lose it, and every other function with functions inside (`while_loop`, `cond`).
Equations that nothing depends on are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend import core
from jaxtyping import Array, PyTree

INLINED = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2")


@dataclass(frozen=True, eq=False)
class Value:
    """An array that enters a graph or comes out of an equation."""

    shape: tuple[int, ...]
    dtype: Any


@dataclass(frozen=True, eq=False)
class Constant:
    """An array or number written into the computation."""

    value: Any


Atom = Value | Constant


@dataclass(frozen=True, eq=False)
class Equation:
    """outputs = primitive(inputs); `body` is the graph of one turn of a `scan`."""

    primitive: core.Primitive
    params: dict[str, Any]
    inputs: tuple[Atom, ...]
    outputs: tuple[Value, ...]
    has_effects: bool
    body: Graph | None

    @property
    def name(self) -> str:
        return self.primitive.name

    def bind(self, values: Sequence[Array]) -> list[Array]:
        """The outputs at these values of the inputs."""
        params = self.primitive.get_bind_params(self.params)
        functions = ()
        if isinstance(params, tuple):  # as older versions of JAX have it
            functions, params = params
        results = self.primitive.bind(*functions, *values, **params)
        return list(results) if self.primitive.multiple_results else [results]


@dataclass(frozen=True, eq=False)
class Graph:
    """Equations in the order of their evaluation.

    Args:
        equations: all that the outputs or an effect (as a print) depend on.
        relevant: those that the outputs depend on.
    """

    inputs: tuple[Value, ...]
    equations: tuple[Equation, ...]
    relevant: tuple[Equation, ...]
    outputs: tuple[Atom, ...]

    def readers(self) -> dict[Value, list[Equation | None]]:
        """Who reads a value, once for every time it does; None reads the outputs."""
        readers: dict[Value, list[Equation | None]] = {}
        for equation in (*self.relevant, None):
            read = self.outputs if equation is None else equation.inputs
            for atom in read:
                if isinstance(atom, Value):
                    readers.setdefault(atom, []).append(equation)
        return readers


@dataclass(frozen=True)
class Loop:
    """How many inputs and outputs of a `scan` are what.

    Inputs are constants, then the carry, then the arrays it runs over; outputs are the
    carry, then what it stacks. What runs over the loop has one axis more outside than
    inside, by which it is told apart in every version of JAX.
    """

    constants: int
    carry: int

    @classmethod
    def of(cls, equation: Equation) -> Loop:
        assert equation.body is not None
        outside = [rank(atom) for atom in equation.inputs]
        inside = [len(value.shape) for value in equation.body.inputs]
        running = sum(a != b for a, b in zip(outside, inside, strict=True))
        outside = [len(value.shape) for value in equation.outputs]
        inside = [rank(atom) for atom in equation.body.outputs]
        carry = sum(a == b for a, b in zip(outside, inside, strict=True))
        return cls(len(equation.inputs) - running - carry, carry)


def trace(
    function: Callable[..., PyTree], *arguments: PyTree
) -> tuple[Graph, jax.tree_util.PyTreeDef]:
    """The graph of a function, between leaves, and the tree of the function's outputs.

    Args:
        arguments: arrays or their shapes.
    """
    closed, outputs = jax.make_jaxpr(function, return_shape=True)(*arguments)
    return _graph(closed), jax.tree.structure(outputs)


def _graph(closed: core.ClosedJaxpr) -> Graph:
    inputs = tuple(_value(variable) for variable in closed.jaxpr.invars)
    equations: list[Equation] = []
    outputs = _inline(closed, inputs, equations)
    every = _needed(equations, outputs, effects=True)
    return Graph(inputs, every, _needed(every, outputs, effects=False), outputs)


def _inline(
    function: core.Jaxpr | core.ClosedJaxpr,
    inputs: Sequence[Atom],
    equations: list[Equation],
) -> tuple[Atom, ...]:
    """Append a function's equations at these inputs; returns its outputs."""
    if isinstance(function, core.ClosedJaxpr):
        jaxpr, constants = function.jaxpr, function.consts
    else:
        jaxpr, constants = function, []
    atoms: dict[core.Var, Atom] = {}
    atoms.update(zip(jaxpr.constvars, map(Constant, constants), strict=True))
    atoms.update(zip(jaxpr.invars, inputs, strict=True))

    def read(variable: core.Var | core.Literal) -> Atom:
        if isinstance(variable, core.Literal):
            return Constant(variable.val)
        return atoms[variable]

    for equation in jaxpr.eqns:
        arguments = tuple(map(read, equation.invars))
        name, params = equation.primitive.name, equation.params
        outputs: tuple[Atom, ...]
        if name in INLINED:
            inner = params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"]
            outputs = _inline(inner, arguments, equations)
        else:
            values = tuple(map(_value, equation.outvars))
            body = _graph(params["jaxpr"]) if name == "scan" else None
            has_effects = bool(equation.effects)
            equations.append(
                Equation(
                    equation.primitive, params, arguments, values, has_effects, body
                )
            )
            outputs = values
        atoms.update(zip(equation.outvars, outputs, strict=True))
    return tuple(map(read, jaxpr.outvars))


def _needed(
    equations: Sequence[Equation], outputs: Sequence[Atom], effects: bool
) -> tuple[Equation, ...]:
    """The equations on which the outputs, and the effects, depend."""
    needed = set(outputs)
    kept = []
    for equation in reversed(equations):
        acts = effects and equation.has_effects
        if acts or not needed.isdisjoint(equation.outputs):
            needed.update(equation.inputs)
            kept.append(equation)
    return tuple(reversed(kept))


def _value(variable: core.Var) -> Value:
    array: Any = variable.aval
    return Value(tuple(array.shape), array.dtype)


def rank(atom: Atom) -> int:
    """The number of its axes."""
    return len(atom.shape) if isinstance(atom, Value) else jax.numpy.ndim(atom.value)
