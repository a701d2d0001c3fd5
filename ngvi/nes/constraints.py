"""Constraints as SciPy's optimisers accept them, as one vector c(x).

An interval l ≤ g(x) ≤ u becomes, for each of its numbers,

    g − l = 0  where l = u,   l − g ≤ 0  where l is finite,   g − u ≤ 0  where u is.

A JAX function is evaluated in the compiled loop, any other one by one on the host. What
raises, or is not finite, makes the evaluation of its point a failed one; see
`ngvi.nes.lagrangian` for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ngvi.nes.layout import Layout
from ngvi.nes.tracing import TracedConstraints, program_of


@dataclass(frozen=True)
class Interval:
    """l ≤ g(x) ≤ u."""

    fun: Callable[..., Any]
    """g, called with `args` too."""
    args: tuple[Any, ...]
    lower: np.ndarray
    upper: np.ndarray
    flat: bool
    """Whether g is of the vector; else of what is built as x0 is."""
    size: int = 0
    """How many numbers g has."""

    def at(self, layout: Layout, x: Any, args: tuple[Any, ...]) -> Any:
        """g at a vector."""
        return self.fun(x if self.flat else layout.unflatten(x), *args)

    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """l and u, for each number of g."""
        low = np.broadcast_to(self.lower, (self.size,))
        return low, np.broadcast_to(self.upper, (self.size,))


class Constraints:
    """All constraints of a search.

    Args:
        given: one, or a sequence of them: `scipy.optimize.NonlinearConstraint`,
            `LinearConstraint`, or a dict of "type" ("ineq" for fun(x) ≥ 0, "eq"), "fun"
            and "args".
        layout: of x0.
        x0: where each is looked at once, to count its numbers.

    Raises:
        TypeError: something is no constraint.
        ValueError: bounds that are NaN, cross or do not fit; a function that raises at
            x0, or returns no real numbers.
    """

    def __init__(self, given: Any, layout: Layout, x0: Float[Array, "d"]) -> None:
        many = given if isinstance(given, Sequence) else [given]
        self.layout = layout
        self.parts = [
            _measured(_as_interval(one, layout.dim), i, layout, x0)
            for i, one in enumerate(many)
        ]
        limits = [part.limits() for part in self.parts]
        self._low = np.concatenate([low for low, _ in limits])
        self._high = np.concatenate([high for _, high in limits])
        same = self._low == self._high
        self._places = [
            np.flatnonzero(same),
            np.flatnonzero(np.isfinite(self._low) & ~same),
            np.flatnonzero(np.isfinite(self._high) & ~same),
        ]
        count, all_of = len(self._places[0]), sum(map(len, self._places))
        if not all_of:
            raise ValueError("the constraints constrain nothing: no bound is finite")
        self.equality = np.arange(all_of) < count

    @property
    def data(self) -> Any:
        """What may change without a new compilation."""
        return [part.args for part in self.parts], self._low, self._high

    def at(self, x: Float[Array, "d"], data: Any) -> Float[Array, "m"]:
        """c, as a JAX function of a vector and `data`."""
        arguments, low, high = data
        g = [
            jnp.ravel(jnp.asarray(part.at(self.layout, x, args)))
            for part, args in zip(self.parts, arguments, strict=True)
        ]
        return self._signed(jnp, jnp.concatenate(g), low, high)

    def traced(self, x0: Float[Array, "d"]) -> TracedConstraints | None:
        """c, if all constraints are JAX functions."""
        found = program_of(self.at, x0, self.data)
        return None if found is None else TracedConstraints(self.at, found[0])

    def values(
        self,
        points: Float[np.ndarray, "n d"],
        wanted: Bool[np.ndarray, "n"],
        fail: Callable[[Exception], Any],
    ) -> Float[np.ndarray, "n m"]:
        """c at the points where it is wanted; NaN at the others, and where a constraint
        raises, which `fail` is told."""
        found = np.full((len(points), self.equality.size), np.nan)
        for i in np.flatnonzero(wanted):
            found[i] = self._here(points[i], fail)
        return found

    def _here(self, x: np.ndarray, fail: Callable[[Exception], Any]) -> np.ndarray:
        g = []
        for i, part in enumerate(self.parts):
            try:
                value = part.at(self.layout, x.copy(), part.args)
            except Exception as error:  # a constraint may raise anything
                fail(error)
                return np.full(self.equality.size, np.nan)
            g.append(_numbers(value, i))
            if g[-1].size != part.size:
                raise ValueError(
                    f"constraint {i} must return as many numbers at every point, got "
                    f"{g[-1].size} after {part.size} at x0"
                )
        return self._signed(np, np.concatenate(g), self._low, self._high)

    def _signed(self, xp: Any, g: Any, low: Any, high: Any) -> Any:
        same, below, above = self._places
        return xp.concatenate(
            [g[same] - low[same], low[below] - g[below], g[above] - high[above]]
        )


def _as_interval(one: Any, dim: int) -> Interval:
    """A constraint of any kind as an interval."""
    if isinstance(one, Mapping):
        interval = _of_dict(one)
    elif not (hasattr(one, "lb") and hasattr(one, "ub")):
        raise TypeError(
            "constraints are NonlinearConstraint, LinearConstraint, or a dict with "
            f"type and fun, or a sequence of them; got {type(one).__name__}"
        )
    elif not (hasattr(one, "A") or hasattr(one, "fun")):
        raise TypeError("Bounds are no constraint: give them as bounds")
    else:
        interval = _of_object(one, dim)
    if not callable(interval.fun):
        raise TypeError(f"a constraint's fun must be callable, got {interval.fun!r}")
    return interval


def _of_dict(one: Mapping[str, Any]) -> Interval:
    kind, args = str(one.get("type")).lower(), one.get("args", ())
    if kind not in ("ineq", "eq"):
        raise ValueError(
            f"a constraint's type must be 'ineq' or 'eq', got {one.get('type')!r}"
        )
    fun: Any = one.get("fun")
    upper = np.zeros(1) if kind == "eq" else np.full(1, np.inf)
    return Interval(fun, tuple(args), np.zeros(1), upper, flat=False)


def _of_object(one: Any, dim: int) -> Interval:
    """Of SciPy's classes."""
    lower, upper = (np.ravel(np.asarray(b, float)) for b in (one.lb, one.ub))
    if np.any(getattr(one, "keep_feasible", False)):
        raise ValueError(
            "keep_feasible is not supported: points that violate constraints are "
            "evaluated on the way"
        )
    if np.isnan(lower).any() or np.isnan(upper).any():
        raise ValueError("a constraint's bounds must not be NaN")
    if not hasattr(one, "A"):
        return Interval(one.fun, (), lower, upper, flat=False)
    matrix = one.A.toarray() if hasattr(one.A, "toarray") else one.A
    matrix = np.atleast_2d(np.asarray(matrix, float))
    if matrix.ndim != 2 or matrix.shape[1] != dim:
        raise ValueError(
            f"a linear constraint's A must have {dim} columns, one a number of x0, got "
            f"shape {np.shape(one.A)}"
        )
    return Interval(_linear, (matrix,), lower, upper, flat=True)


def _linear(x: Any, matrix: Any) -> Any:
    return matrix @ x


def _measured(interval: Interval, number: int, layout: Layout, x0: Array) -> Interval:
    """With its size, from a look at x0."""
    fun, args = partial(interval.at, layout), interval.args
    try:
        shape = jax.eval_shape(lambda *a: jnp.ravel(jnp.asarray(fun(*a))), x0, args)
    except Exception:  # whatever keeps a Python function from being traced
        try:
            value = fun(np.array(x0, float), args)
        except Exception as error:
            raise ValueError(
                f"constraint {number} raised at x0: {type(error).__name__}: {error}"
            ) from error
        size = _numbers(value, number).size
    else:
        size = shape.size
    for name, bound in (("lb", interval.lower), ("ub", interval.upper)):
        if bound.size not in (1, size):
            raise ValueError(
                f"constraint {number} returns {size} numbers, its {name} has "
                f"{bound.size}"
            )
    if np.any(interval.lower > interval.upper):
        raise ValueError(f"constraint {number} has a lower bound above the upper one")
    return replace(interval, size=size)


def _numbers(value: Any, number: int) -> np.ndarray:
    """What a constraint has returned, as a vector."""
    array = np.ravel(np.asarray(value))
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"constraint {number} must return real numbers, got a "
            f"{type(value).__name__}: {value!r}"
        )
    return array.astype(float)


def checked_ctol(ctol: float | None, dtype: Any) -> float:
    """The tolerance of a violation, or the default for a precision.

    Raises:
        ValueError: it is negative.
    """
    if ctol is None:
        return 1e-6 if dtype == np.float64 else 1e-3
    if not ctol >= 0:
        raise ValueError(f"ctol must be at least 0, got {ctol}")
    return float(ctol)
