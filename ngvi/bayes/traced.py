"""What the trace of a log density tells of it, from shapes alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ngvi.bayes.target import Data

_FACTORISATIONS = {"cholesky", "triangular_solve", "eigh", "lu", "qr", "svd", "schur"}


class Traced(NamedTuple):
    """What a log density is made of."""

    operations: float
    """Elementary ones of one evaluation, see `operations`."""
    factorises: bool
    """It factorises matrices, or solves with factors."""


def traced(target: Any, data: Data) -> Traced:
    """The trace of a target's potential at data of these shapes."""
    leaves, structure = jax.tree.flatten(data)
    shapes = tuple((np.shape(leaf), leaf.dtype) for leaf in leaves)
    return _traced(target, structure, shapes)


@lru_cache(256)
def _traced(target: Any, structure: Any, shapes: tuple) -> Traced:
    leaves = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
    data = jax.tree.unflatten(structure, leaves)
    point = jax.ShapeDtypeStruct((target.dim,), jnp.result_type(float))
    jaxpr = jax.make_jaxpr(target.potential)(data, point).jaxpr
    names = {equation.primitive.name for equation in _equations(jaxpr)}
    return Traced(operations(jaxpr), bool(names & _FACTORISATIONS))


def _inside(equation: Any) -> list[Any]:
    """The traces that an equation is made of, as of loops."""
    return [
        getattr(part, "jaxpr", part)
        for value in equation.params.values()
        for part in (value if isinstance(value, tuple | list) else (value,))
        if hasattr(getattr(part, "jaxpr", part), "eqns")
    ]


def _equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for inner in _inside(equation):
            yield from _equations(inner)


def operations(jaxpr: Any) -> float:
    """Elementary operations of a traced function: results' entries, and what products
    of matrices add up; loops of unknown length count once."""
    total = 0.0
    for equation in jaxpr.eqns:
        if inner := _inside(equation):
            repeated = equation.params.get("length", 1)
            total += repeated * sum(map(operations, inner))
            continue
        entries = sum(int(np.prod(v.aval.shape)) for v in equation.outvars)
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            entries *= 2 * int(np.prod([shape[axis] for axis in contracted]))
        total += entries
    return total
