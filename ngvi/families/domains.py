"""The sets that parameters and observations live in."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from ngvi.families.factored import factor


@dataclass(frozen=True)
class Domain:
    """A set of arrays.

    Attributes:
        description: completes "must be …".
        ndim: how many trailing axes one element has.
        test: maps a floating array (*b, *element) and the array module, NumPy or
            jax.numpy, to a truth for each of the batch; false for NaN.
        interior: maps an array to one of the same shape (or that broadcasts to it)
            that lies inside: what stands in where a formula must not meet a value
            outside.
        discrete: whether the set is countable.
        low: the limit that every entry lies above, where that is all there is to it.
    """

    description: str
    ndim: int
    test: Callable[[Any, ModuleType], Any]
    interior: Callable[[Any], Any] = jnp.zeros_like
    discrete: bool = False
    low: float | None = None

    def holds(self, value: Any, xp: ModuleType = jnp) -> Bool[Array, "*b"]:
        """Which of a batch of arrays are elements."""
        value = xp.asarray(value)
        if not xp.issubdtype(value.dtype, xp.floating):
            value = value.astype(float)
        # What is no number is no element; NumPy need not warn of it.
        with np.errstate(all="ignore"):
            return self.test(value, xp)

    def replace_outside(self, value: Array, inside: Bool[Array, "*b"]) -> Array:
        """The array, with an interior point where `inside` is false."""
        mask = jnp.expand_dims(inside, tuple(range(-self.ndim, 0)))
        return jnp.where(mask, value, self.interior(value))

    def repeated(self, axes: int) -> Domain:
        """The arrays of elements, with that many axes before the element's own."""
        if axes == 0:
            return self
        trailing = tuple(range(-axes, 0))
        return dataclasses.replace(
            self,
            description=f"an array whose elements are each {self.description}",
            ndim=self.ndim + axes,
            test=lambda value, xp: self.test(value, xp).all(trailing),
        )

    def missing(self, value: Array) -> Bool[Array, "*b"]:
        """Which of a batch of arrays hold a NaN."""
        return jnp.isnan(value).any(tuple(range(-self.ndim, 0)))

    def as_floats(self, value: Any, dtype: Any) -> Array:
        """The value as an array of its own floating dtype, else of this one."""
        array = jnp.asarray(value)
        # Python's numbers have no dtype of their own.
        known = hasattr(value, "dtype") and jnp.issubdtype(array.dtype, jnp.floating)
        return array if known else array.astype(dtype)

    def batch_shape(self, value: Array) -> tuple[int, ...]:
        """The shape of the leading axes."""
        return value.shape[: value.ndim - self.ndim]


@dataclass(frozen=True)
class Joint:
    """The pytrees of arrays whose leaves each lie in a domain of their own.

    Attributes:
        parts: a pytree of domains.
    """

    parts: Any

    def __hash__(self) -> int:
        leaves, structure = jax.tree.flatten(self.parts)
        return hash((*leaves, structure))

    @property
    def description(self) -> str:
        """Completes "must be …"."""
        paths = jax.tree_util.tree_leaves_with_path(self.parts)
        named = [f"{jax.tree_util.keystr(k)} {d.description}" for k, d in paths]
        return "a pytree with " + ", ".join(named)

    def holds(self, value: Any, xp: ModuleType = jnp) -> Bool[Array, "*b"]:
        """Which of a batch of pytrees are elements."""
        return functools.reduce(
            operator.and_, self._map(lambda d, v: d.holds(v, xp), value)
        )

    def replace_outside(self, value: Any, inside: Bool[Array, "*b"]) -> Any:
        """The pytree, with an interior point where `inside` is false."""
        leaves = self._map(lambda d, v: d.replace_outside(v, inside), value)
        return jax.tree.unflatten(jax.tree.structure(value), leaves)

    def repeated(self, axes: int) -> Joint:
        """The pytrees of arrays of elements, with that many more axes each."""
        return Joint(jax.tree.map(lambda d: d.repeated(axes), self.parts))

    def missing(self, value: Any) -> Bool[Array, "*b"]:
        """Which of a batch of pytrees hold a NaN."""
        return functools.reduce(
            operator.or_, self._map(lambda d, v: d.missing(v), value)
        )

    def as_floats(self, value: Any, dtype: Any) -> Any:
        """The leaves as arrays of their own floating dtypes, else of this one."""
        leaves = self._map(lambda d, v: d.as_floats(v, dtype), value)
        return jax.tree.unflatten(jax.tree.structure(value), leaves)

    def batch_shape(self, value: Any) -> tuple[int, ...]:
        """The shape of the leading axes."""
        return jnp.broadcast_shapes(*self._map(lambda d, v: d.batch_shape(v), value))

    def _map(self, function: Callable[[Any, Any], Any], value: Any) -> list[Any]:
        domains = jax.tree.leaves(self.parts)
        leaves = jax.tree.leaves(value)
        return [function(d, v) for d, v in zip(domains, leaves, strict=True)]


def _one(value: Any) -> Any:
    return jnp.ones_like(value)


def _half(value: Any) -> Any:
    return jnp.full_like(value, 0.5)


def _uniform(value: Any) -> Any:
    return jnp.full_like(value, 1 / value.shape[-1])


def _identity(value: Any) -> Any:
    return jnp.broadcast_to(jnp.eye(value.shape[-1], dtype=value.dtype), value.shape)


def _first_axis(value: Any) -> Any:
    return jnp.zeros_like(value).at[..., 0].set(1)


def _between(value: Any, low: float, high: float, xp: ModuleType) -> Any:
    """Whether low ≤ value ≤ high, false for NaN.

    A single comparison: with two and their conjunction, what it masks takes twice the
    time in compiled programs.
    """
    return value == xp.clip(value, low, high)


def _positive(value: Any, xp: ModuleType) -> Any:
    # Numbers below the normal ones are zero in compiled programs.
    limits = xp.finfo(value.dtype)
    return _between(value, limits.tiny, limits.max, xp)


def _non_negative(value: Any, xp: ModuleType) -> Any:
    return _between(value, 0, xp.finfo(value.dtype).max, xp)


def _probability(value: Any, xp: ModuleType) -> Any:
    limits = xp.finfo(value.dtype)
    return _between(value, limits.tiny, 1 - limits.epsneg, xp)


def _sums_to_one(value: Any, xp: ModuleType) -> Any:
    tolerance = 10 * value.shape[-1] ** 0.5 * xp.finfo(value.dtype).eps
    return abs(value.sum(-1) - 1) <= max(float(tolerance), 1e-6)


def _has_length_one(value: Any, xp: ModuleType) -> Any:
    return abs((value**2).sum(-1) - 1) <= max(
        1e-6, 1e3 * float(xp.finfo(value.dtype).eps)
    )


def _positive_definite(value: Any, xp: ModuleType) -> Any:
    if value.shape[-1] != value.shape[-2]:
        return xp.zeros(value.shape[:-2], bool)
    transposed = xp.swapaxes(value, -1, -2)
    diagonal = xp.diagonal(value, axis1=-2, axis2=-1)
    # In units of the diagonal, so that a matrix in mixed units is judged alike.
    units = xp.sqrt(xp.where(diagonal > 0, diagonal, xp.nan))
    products = units[..., :, None] * units[..., None, :]
    gap = abs(value - transposed) / products
    tolerance = 100 * float(xp.finfo(value.dtype).eps)
    symmetric = (gap <= tolerance).all((-2, -1))
    if xp is jnp:
        return symmetric & jnp.isfinite(factor(value).root).all((-2, -1))
    scaled = value / products
    safe = xp.where(symmetric[..., None, None], scaled, xp.eye(value.shape[-1]))
    return symmetric & (xp.linalg.eigvalsh(safe)[..., 0] > 0)


def above(low: float) -> Domain:
    """The numbers above a limit."""
    return Domain(
        f"above {low:g}",
        0,
        lambda v, xp: (v > low) & xp.isfinite(v),
        lambda v: jnp.full_like(v, low + 1),
        low=low,
    )


def whole_numbers(low: int, high: int | None = None) -> Domain:
    """The whole numbers from `low` up to `high`, both included."""
    limit = "or more" if high is None else f"to {high}"
    return Domain(
        f"a whole number, {low} {limit}",
        0,
        lambda v, xp: (
            (v >= low)
            & (xp.isfinite(v) if high is None else v <= high)
            & (xp.floor(v) == v)
        ),
        lambda v: jnp.full_like(v, low),
        discrete=True,
    )


def counts(total: int) -> Domain:
    """Vectors of whole numbers, zero or more, with a given sum."""

    def interior(v: Any) -> Any:
        return jnp.zeros_like(v).at[..., 0].set(total)

    return Domain(
        f"a vector of counts that sum to {total}",
        1,
        lambda v, xp: ((v >= 0) & (xp.floor(v) == v)).all(-1) & (v.sum(-1) == total),
        interior,
        discrete=True,
    )


REAL = Domain("finite", 0, lambda v, xp: xp.isfinite(v))
POSITIVE = Domain("positive", 0, _positive, _one, low=0.0)
NON_NEGATIVE = Domain("zero or more", 0, _non_negative, _one)
PROBABILITY = Domain(
    "a probability between 0 and 1, both excluded",
    0,
    _probability,
    _half,
)
REAL_VECTOR = Domain("a finite vector", 1, lambda v, xp: xp.isfinite(v).all(-1))
POSITIVE_VECTOR = Domain(
    "a vector of positive numbers",
    1,
    lambda v, xp: _positive(v, xp).all(-1),
    _one,
    low=0.0,
)
SIMPLEX = Domain(
    "a vector of positive numbers that sum to one",
    1,
    lambda v, xp: _positive(v, xp).all(-1) & _sums_to_one(v, xp),
    _uniform,
)
UNIT_VECTOR = Domain("a vector of length one", 1, _has_length_one, _first_axis)
REAL_MATRIX = Domain("a finite matrix", 2, lambda v, xp: xp.isfinite(v).all((-2, -1)))
POSITIVE_DEFINITE = Domain(
    "a symmetric positive-definite matrix", 2, _positive_definite, _identity
)
