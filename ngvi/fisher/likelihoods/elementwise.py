"""Likelihoods of independent numbers, one for each entry of the outputs.

f is an array, or a tuple of k arrays of one shape, and y an array of that shape: entry
by entry, k numbers say what the distribution of one label is. The first says where the
label lies; a scale, shape or precision is known, or its logarithm is one output more.
Λ has a k × k block for every entry, k ≤ 3, and its root is the Cholesky factor of each.
A pivot that rounding made negative counts as zero, so that the root is finite where Λ
is singular.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import fields
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.families.domains import POSITIVE, Domain
from ngvi.families.parameters import checked, fixed_fields, is_concrete
from ngvi.fisher.likelihoods.base import (
    Likelihood,
    Outputs,
    block_columns,
    check_floating,
    check_parameter_fits,
    check_support,
    like,
)

Values = Float[Array, "*e"]
Triangle = tuple[tuple[Values, ...], ...]
"""The lower triangles of k × k matrices, row by row, each entry an array (*e)."""


class Elementwise(Likelihood):
    """Independent labels; the methods ending in `_each` are about each of them.

    The fields that are not `fixed` are parameters: positive numbers, one or one for
    each label; None where the parameter is learned, so that its logarithm is an output.
    """

    support: ClassVar[Domain]
    """Where one label lies."""
    location: ClassVar[str]
    """What the first output is: "mean", "log mean", "log rate" or "logit mean"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in self._parameters().items():
            if value is not None and is_concrete(value):
                checked(value, POSITIVE, f"{self._name}: {name}")

    def _parameters(self) -> dict[str, Any]:
        """By name, the learned ones as None."""
        record: Any = self
        fixed = fixed_fields(record)
        return {f.name: getattr(self, f.name) for f in fields(record) if f not in fixed}

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the arrays of f are, such as ("mean", "log scale")."""
        parameters = self._parameters().items()
        learned = [f"log {name}" for name, value in parameters if value is None]
        return (self.location, *learned)

    def parameter(self, name: str, f: tuple[Values, ...]) -> Values:
        """A parameter of each label, known or learned."""
        known = getattr(self, name)
        if known is None:
            return jnp.exp(self.log_parameter(name, f))
        return jnp.broadcast_to(like(known, f[0]), f[0].shape)

    def log_parameter(self, name: str, f: tuple[Values, ...]) -> Values:
        """Its logarithm."""
        known = getattr(self, name)
        if known is None:
            return f[self.outputs.index(f"log {name}")]
        return jnp.broadcast_to(jnp.log(like(known, f[0])), f[0].shape)

    @abstractmethod
    def log_prob_each(self, y: Values, *f: Values) -> Values:
        """log p(y | f); y has the dtype of f."""

    @abstractmethod
    def sample_each(self, key: Key[Array, ""], *f: Values) -> Array:
        """Draws."""

    @abstractmethod
    def mean_each(self, *f: Values) -> Values:
        """E[y | f]."""

    @abstractmethod
    def information(self, *f: Values) -> Triangle:
        """The blocks of Λ."""

    @abstractmethod
    def kl_each(self, f: tuple[Values, ...], g: tuple[Values, ...]) -> Values:
        """KL(p(· | f) ‖ p(· | g))."""

    def unit_deviance(self, y: Values, *f: Values) -> Values:
        """2 [max log p − log p], the maximum over the first output; not every
        likelihood has one."""
        raise NotImplementedError(f"{self._name} has no deviance")

    # -- for one example: sums over its entries ------------------------------------

    def log_prob(self, f: Outputs, y: Array) -> Float[Array, ""]:
        parts = jax.tree.leaves(f)
        return self.log_prob_each(jnp.asarray(y, parts[0].dtype), *parts).sum()

    def sample(self, key: Key[Array, ""], f: Outputs) -> Array:
        return self.sample_each(key, *jax.tree.leaves(f))

    def mean(self, f: Outputs) -> Values:
        return self.mean_each(*jax.tree.leaves(f))

    def kl(self, f: Outputs, g: Outputs) -> Float[Array, ""]:
        return self.kl_each(tuple(jax.tree.leaves(f)), tuple(jax.tree.leaves(g))).sum()

    def fisher_mv(self, f: Outputs, v: Outputs) -> Outputs:
        parts, structure = jax.tree.flatten(f)
        rows = self.information(*parts)
        direction = jax.tree.leaves(v)
        count = range(len(parts))
        product = [
            sum(rows[max(i, j)][min(i, j)] * direction[j] for j in count) for i in count
        ]
        return jax.tree.unflatten(structure, product)

    def root_columns(self, f: Outputs) -> Outputs:
        parts, structure = jax.tree.flatten(f)
        zero = jnp.zeros_like(parts[0])
        root = _cholesky(self.information(*parts))
        count = len(parts)
        columns = [
            block_columns(
                jnp.stack([*row, *[zero] * (count - len(row))], -1), zero.shape
            )
            for row in root
        ]
        return jax.tree.unflatten(structure, columns)

    # -- checks --------------------------------------------------------------------

    def check_outputs(self, outputs: Outputs) -> None:
        names = self.outputs
        parts = list(outputs) if isinstance(outputs, tuple | list) else [outputs]
        if len(parts) != len(names):
            wanted = f"a tuple of arrays ({', '.join(names)})"
            wanted = f"one array, the {names[0]}" if len(names) == 1 else wanted
            raise ValueError(
                f"{self._name}: the outputs must be {wanted}, got {len(parts)}"
                + (" arrays" if len(parts) != 1 else " array")
            )
        for name, part in zip(names, parts, strict=True):
            check_floating(self._name, f"the output {name!r}", part)
        shapes = {n: tuple(p.shape) for n, p in zip(names, parts, strict=True)}
        if len(set(shapes.values())) > 1:
            raise ValueError(
                f"{self._name}: the outputs must have one shape, got {shapes}; "
                "jnp.broadcast_to makes one of a shared parameter"
            )
        for name, value in self._parameters().items():
            check_parameter_fits(self._name, name, value, parts[0])

    def check_labels(self, outputs: Outputs, y: Array) -> None:
        shape = tuple(jax.tree.leaves(outputs)[0].shape)
        check_support(self._name, self.support, y, shape)


def _cholesky(rows: Triangle) -> Triangle:
    """The lower roots of positive-semidefinite matrices, entry by entry."""
    root: list[tuple[Values, ...]] = []
    for i, row in enumerate(rows):
        new: list[Values] = []
        for j in range(i + 1):
            rest = row[j] - sum(new[k] * _at(root, new, j, k) for k in range(j))
            if i == j:
                new.append(jnp.sqrt(jnp.maximum(rest, 0)))
            else:
                pivot = root[j][j]
                some = pivot > 0
                new.append(jnp.where(some, rest / jnp.where(some, pivot, 1), 0))
        root.append(tuple(new))
    return tuple(root)


def _at(root: list[tuple[Values, ...]], new: list[Values], j: int, k: int) -> Values:
    """Entry (j, k) of a root whose last row is being made."""
    return new[k] if j == len(root) else root[j][k]
