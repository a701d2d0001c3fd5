"""The product of independent families: a mean field.

    q(x₁, x₂, …) = q₁(x₁) q₂(x₂) …

is an exponential family whose λ, T and μ are the pytrees of the factors' and whose A is
their sum; its Fisher matrix is block diagonal.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.families.base import ExponentialFamily, Params
from ngvi.families.domains import Joint
from ngvi.families.interface import Interface
from ngvi.families.parameters import branch, check_fixed, family, fixed
from ngvi.linalg import BlockDiagonal


def _is_family(node: Any) -> bool:
    return isinstance(node, ExponentialFamily)


def _is_shape(node: Any) -> bool:
    return isinstance(node, tuple) and all(isinstance(size, int) for size in node)


@family
class Product(ExponentialFamily):
    """Independent families, one for each leaf of a pytree.

    Args:
        factors: any pytree of families. The batch axes of a factor past the first
            `batch_ndim` are independent parts of one event.
        batch_ndim: how many leading axes, the same in every factor, number a batch of
            products rather than parts of one.

    An event is a pytree like `factors`.

    Example:
        >>> import jax
        >>> from ngvi.families import Gamma, Normal
        >>> slopes = Normal(jax.numpy.zeros(3), 1.0)
        >>> q = Product({"slopes": slopes, "noise": Gamma(2.0, 2.0)})
        >>> x = q.sample(jax.random.key(0), (5,))
        >>> x["slopes"].shape, q.log_prob(x).shape
        ((5, 3), (5,))
    """

    factors: Any = branch()
    batch_ndim: int = fixed("0 or more", lambda n: n >= 0, default=0)

    def __post_init__(self) -> None:
        check_fixed(self)
        leaves = jax.tree.leaves(self.factors, is_leaf=_is_family)
        strangers = [type(f).__name__ for f in leaves if not _is_family(f)]
        if strangers or not leaves:
            raise TypeError(
                "Product: factors must be a pytree of exponential families, got "
                f"{', '.join(strangers) or 'none'}"
            )
        batches = {f.batch_shape[: self.batch_ndim] for f in leaves}
        if len(batches) > 1 or len(batches.pop()) != self.batch_ndim:
            raise ValueError(
                f"Product: the first {self.batch_ndim} batch axes must be the same in "
                f"every factor, got {[f.batch_shape for f in leaves]}"
            )

    # -- each factor, and the sum over factors -----------------------------------------

    def _each(self, function: Callable[..., Any], *trees: Any) -> Any:
        return jax.tree.map(function, self.factors, *trees, is_leaf=_is_family)

    def _leaves(self) -> list[ExponentialFamily]:
        return jax.tree.leaves(self.factors, is_leaf=_is_family)

    def _structure(self) -> Any:
        return jax.tree.structure(self.factors, is_leaf=_is_family)

    def _split(self, tree: Any) -> list[Any]:
        """The part of a tree that belongs to each factor."""
        parts: list[Any] = []
        self._each(lambda _, part: parts.append(part), tree)
        return parts

    def _sum(self, numbers: Any) -> Float[Array, "*b"]:
        """The sum of one number for each independent part, after its leading axes."""
        totals = [
            v.sum(tuple(range(self.batch_ndim - len(f.batch_shape), 0)))
            for f, v in zip(self._leaves(), self._split(numbers), strict=True)
        ]
        return functools.reduce(operator.add, totals)

    # -- the family --------------------------------------------------------------------

    @property
    def support(self) -> Joint:
        def of_factor(f: ExponentialFamily) -> Any:
            part = f.support.repeated(len(f.batch_shape) - self.batch_ndim)
            return part.parts if isinstance(part, Joint) else part

        return Joint(self._each(of_factor))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self._leaves()[0].batch_shape[: self.batch_ndim]

    @property
    def event_shape(self) -> Any:
        """A pytree like `factors`, of shapes."""

        def of_factor(f: ExponentialFamily) -> Any:
            parts = f.batch_shape[self.batch_ndim :]
            return jax.tree.map(
                lambda shape: (*parts, *shape), f.event_shape, is_leaf=_is_shape
            )

        return self._each(of_factor)

    @property
    def fixed(self) -> dict[str, Any]:
        return {"factors": self.factors, "batch_ndim": self.batch_ndim}

    @property
    def natural_params(self) -> Params:
        return self._each(lambda f: f.natural_params)

    @property
    def mean_params(self) -> Params:
        return self._each(lambda f: f.mean_params)

    @classmethod
    def from_natural(cls, params: Params, *, factors: Any, batch_ndim: int = 0) -> Self:
        """The product with natural parameters λ.

        Args:
            params: a pytree like `factors`, of each factor's natural parameters.
            factors: any members of the factors' families: which families they are, and
                what is fixed in them.
            batch_ndim: see the class.
        """
        like = cls(factors, batch_ndim)
        return cls(
            like._each(lambda f, p: f.with_natural_params(p), params), batch_ndim
        )

    @classmethod
    def from_mean(cls, params: Params, *, factors: Any, batch_ndim: int = 0) -> Self:
        """The product with mean parameters μ; see `from_natural`."""
        like = cls(factors, batch_ndim)
        return cls(like._each(lambda f, p: f.with_mean_params(p), params), batch_ndim)

    def _sizes(self) -> Any:
        return self.event_shape

    def same_family(self, other: Interface) -> None:
        super().same_family(other)
        assert isinstance(other, Product)
        self._each(lambda f, g: f.same_family(g), other.factors)

    def log_partition(self, params: Params) -> Float[Array, "*b"]:
        return self._sum(self._each(lambda f, p: f.log_partition(p), params))

    def sufficient_statistics(self, x: Any) -> Params:
        return self._each(lambda f, v: f.sufficient_statistics(v), x)

    def log_base_measure(self, x: Any) -> Float[Array, "*b"]:
        return self._sum(self._each(lambda f, v: f.log_base_measure(v), x))

    def expected_log_base_measure(self) -> Float[Array, "*b"]:
        return self._sum(self._each(lambda f: f.expected_log_base_measure()))

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Any:
        leaves = self._leaves()
        keys = jax.random.split(key, len(leaves))
        draws = [f.sample(k, shape) for f, k in zip(leaves, keys, strict=True)]
        return jax.tree.unflatten(self._structure(), draws)

    # Each factor's own closed forms.

    def _log_density(self, x: Any) -> Float[Array, "*b"]:
        return self._sum(self._each(lambda f, v: f._log_density(v), x))

    def entropy(self) -> Float[Array, "*b"]:
        return self._sum(self._each(lambda f: f.entropy()))

    def kl(self, other: Self) -> Float[Array, "*b"]:
        self.same_family(other)
        return self._sum(self._each(lambda f, g: f.kl(g), other.factors))

    def fisher_product(self, direction: Params) -> Params:
        return self._each(lambda f, d: f.fisher_product(d), direction)

    def natural_gradient(self, gradient: Params) -> Params:
        return self._each(lambda f, g: f.natural_gradient(g), gradient)

    @property
    def fisher(self) -> BlockDiagonal:
        blocks: list[Any] = []
        for f in self._leaves():
            extra = len(f.batch_shape) - self.batch_ndim
            blocks += _unstack(f.fisher, f.batch_shape[self.batch_ndim :], extra)
        return BlockDiagonal(tuple(blocks))

    def flatten(self, params: Params) -> Float[Array, "*b n"]:
        parts = []
        for f, part in zip(self._leaves(), self._split(params), strict=True):
            flat = f.flatten(part)
            kept = flat.ndim - 1 - (len(f.batch_shape) - self.batch_ndim)
            parts.append(flat.reshape(*flat.shape[:kept], -1))
        return jnp.concatenate(parts, -1)

    def unflatten(self, vector: Float[Array, "*b n"]) -> Params:
        start, parts = 0, []
        for f in self._leaves():
            like = f.flatten(f.natural_params)
            shape = like.shape[self.batch_ndim :]
            size = functools.reduce(operator.mul, shape)
            piece = vector[..., start : start + size]
            parts.append(f.unflatten(piece.reshape(*piece.shape[:-1], *shape)))
            start += size
        return jax.tree.unflatten(self._structure(), parts)

    def _fit(self, x: Any, weights: Float[Array, "n"]) -> Self:
        fits = self._each(lambda f, v: f._fit(v, weights), x)
        return type(self)(fits, self.batch_ndim)

    @property
    def mean(self) -> Any:
        return self._each(lambda f: f.mean)

    @property
    def variance(self) -> Any:
        return self._each(lambda f: f.variance)

    @property
    def mode(self) -> Any:
        return self._each(lambda f: f.mode)


def _unstack(matrix: Any, shape: tuple[int, ...], axes: int) -> list[Any]:
    """The matrices of a batch, over its last `axes` batch axes, one by one."""
    if axes == 0:
        return [matrix]
    batch = matrix.diagonal().ndim - 1
    axis = batch - axes
    parts = [
        jax.tree.map(lambda leaf, i=i: jnp.take(leaf, i, axis), matrix)
        for i in range(shape[0])
    ]
    return [one for part in parts for one in _unstack(part, shape[1:], axes - 1)]
