"""The prior over weights: normal, with a precision for each layer or group of weights.

    p(w) = N(m₀, diag(δ)⁻¹),   δ_k of group k given, or with a prior of its own,
    δ_k ~ Gamma(a₀, b₀):  q(δ_k) = Gamma(a₀ + P_k/2, b₀ + ½(‖m_k − m₀‖² + tr Σ_k)),

whose mean stands for δ_k. At a₀ = b₀ = 0 it is the δ_k that maximises the evidence
lower bound: empirical Bayes. A group is a layer, unless others are given: with one for
the weights of each input, what does not matter is found out (automatic relevance
determination). m₀ is zero unless it is given, as where the posterior of earlier data is
the prior of later ones.

Source: MacKay (1992), A practical Bayesian framework for backpropagation networks;
Neal (1996), Bayesian learning for neural networks, section 1.2.
"""

from __future__ import annotations

from dataclasses import field, replace
from functools import partial
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ngvi.families.parameters import is_concrete
from ngvi.fisher.layout import Layout
from ngvi.linalg import (
    KroneckerEigen,
    KroneckerFactors,
    PositiveDefinite,
    Semidefinite,
    SemidefiniteBlocks,
)
from ngvi.linalg.batching import join, split
from ngvi.pytrees import pytree


class GammaPrior(NamedTuple):
    """Gamma(concentration, rate) over a precision; zeros are empirical Bayes."""

    concentration: float = 0.0
    rate: float = 0.0


@pytree
class Prior:
    """N(m₀, diag(δ)⁻¹) over the weights of a net.

    Made by `Prior.of`.
    """

    precisions: tuple[Float[Array, "#k"], ...]
    """δ of every part of the layout: one number, or one for each weight."""
    layout: Layout = field(metadata={"static": True})
    hyperprior: GammaPrior | None = field(default=None, metadata={"static": True})
    mean: Float[Array, "p"] | None = None
    """m₀, in the order of the layout; None for zero."""
    groups: tuple[Int[Array, "k"], ...] | None = None
    """Of every part, which of its weights share a δ that is learned; None: all."""

    @classmethod
    def of(
        cls,
        precision: Any,
        layout: Layout,
        hyperprior: GammaPrior | None = None,
        dtype: Any = float,
        mean: Any = None,
        groups: Any = None,
    ) -> Self:
        """Of these precisions.

        Args:
            precision: δ > 0: a number, or a pytree like the parameters, of numbers or
                arrays of the leaves' shapes.
            layout: the order of the weights.
            hyperprior: to learn one δ for each group; it starts as given.
            dtype: of the weights.
            mean: m₀, a pytree like the parameters; zero by default.
            groups: to learn more than one δ for each layer: a pytree like the
                parameters, of integers from 0, equal for weights that share one.

        Raises:
            ValueError: not positive, or another tree; a hyperprior that is negative,
                or for a part whose weights have several precisions and no groups.
        """
        if hyperprior is not None and not min(hyperprior) >= 0:
            raise ValueError(
                f"a hyperprior's concentration and rate must not be negative, got "
                f"{hyperprior.concentration} and {hyperprior.rate}"
            )
        for leaf in jax.tree.leaves(precision):
            if is_concrete(leaf) and not (np.asarray(leaf) > 0).all():
                raise ValueError(f"prior precisions must be positive, got {leaf}")
        about = None if mean is None else layout.vector(mean)
        own = None if groups is None else _groups(groups, layout)
        parts = _precisions(precision, layout, dtype)
        if hyperprior is not None and groups is None and any(one.ndim for one in parts):
            raise ValueError(
                "a hyperprior is over one precision for each layer, and some layer's "
                "weights have several: give each layer one number to start from, or "
                "say by groups which weights share one"
            )
        if own is not None:
            # As many δ as weights, where groups of them will be learned.
            parts = _of_each_weight(parts, layout)
        return cls(parts, layout, hyperprior, about, own)

    @property
    def vector(self) -> Float[Array, "p"]:
        """δ of every weight."""
        return join(_of_each_weight(self.precisions, self.layout))

    def departure(self, w: Float[Array, "p"]) -> Float[Array, "p"]:
        """w − m₀."""
        return w if self.mean is None else w - self.mean

    def gradient(self, w: Float[Array, "p"]) -> Float[Array, "p"]:
        """δ (w − m₀), that of −log p(w)."""
        return self.vector * self.departure(w)

    def add_to(
        self, matrix: Semidefinite, factored: bool = False, more: Any = 0.0
    ) -> PositiveDefinite:
        """F + diag(δ) + more I, factorised; `factored` as in `Curvature.damp`.

        Raises:
            ValueError: Kronecker factors, and several precisions for a layer.
        """
        precisions = tuple(one + more for one in self.precisions)
        if isinstance(matrix, SemidefiniteBlocks):
            self._check_fits(matrix)
            damp = matrix.damp_factored if factored else matrix.damp
            return damp(precisions)
        return matrix.damp(join(_of_each_weight(precisions, self.layout)))

    def _check_fits(self, matrix: SemidefiniteBlocks) -> None:
        """Refuse several precisions where a layer's block takes one."""
        pairs = zip(matrix.blocks, self.precisions, strict=True)
        for place, (block, one) in enumerate(pairs):
            if isinstance(block, KroneckerFactors | KroneckerEigen) and one.ndim:
                raise ValueError(
                    "with Kronecker factors a prior has one precision for all weights "
                    f"of a layer, got several for {self.layout.layers[place].name!r}: "
                    "give its kernel and its bias the same, or take another structure"
                )

    def kl(
        self, mean: Float[Array, "p"], precision: PositiveDefinite
    ) -> Float[Array, ""]:
        """KL(N(m, S⁻¹) ‖ p), in nats."""
        delta = self.vector
        squares = precision.inverse_diagonal() + self.departure(mean) ** 2
        spread = (delta * squares).sum()
        of_volumes = precision.logdet() - jnp.log(delta).sum()
        return (spread - self.layout.dim + of_volumes) / 2

    def learned(self, mean: Float[Array, "p"], precision: PositiveDefinite) -> Self:
        """With every δ the mean of its posterior; the same if there is no hyperprior.

        Args:
            mean: m.
            precision: S.
        """
        if self.hyperprior is None:
            return self
        a, b = self.hyperprior
        squares = self.departure(mean) ** 2 + precision.inverse_diagonal()
        parts = split(squares, self.layout.sizes)
        if self.groups is None:
            found = [(a + x.size / 2) / (b + x.sum() / 2) for x in parts]
            return replace(self, precisions=tuple(found))
        found = []
        for part, group in zip(parts, self.groups, strict=True):
            total = partial(
                jax.ops.segment_sum, segment_ids=group, num_segments=part.size
            )
            sizes, sums = total(jnp.ones_like(part)), total(part)
            found.append(((a + sizes / 2) / (b + sums / 2))[group])
        return replace(self, precisions=tuple(found))


def _precisions(precision: Any, layout: Layout, dtype: Any) -> tuple[Array, ...]:
    """δ of every part, one number where it is one.

    Raises:
        ValueError: another tree.
    """
    if jax.tree_util.all_leaves([precision]) and jnp.ndim(precision) == 0:
        return (jnp.asarray(precision, dtype),) * len(layout.sizes)
    leaves, treedef = jax.tree.flatten(precision)
    if treedef != layout.treedef:
        raise ValueError(
            "prior precisions must be one number or a pytree like the parameters, "
            f"{layout.treedef}, got {treedef}"
        )
    if not is_concrete(*leaves):
        return _by_part(leaves, layout, dtype)
    # Known also while a program is traced, so that it is seen what is constant.
    with jax.ensure_compile_time_eval():
        parts = _by_part(leaves, layout, dtype)
        return tuple(one[0] if (one == one[0]).all() else one for one in parts)


def _of_each_weight(parts: tuple[Array, ...], layout: Layout) -> tuple[Array, ...]:
    """As many δ as weights."""
    pairs = zip(parts, layout.sizes, strict=True)
    return tuple(jnp.broadcast_to(one, (size,)) for one, size in pairs)


def _groups(groups: Any, layout: Layout) -> tuple[Int[Array, "k"], ...]:
    """Of every part, for every weight.

    Raises:
        ValueError: another tree, or no integers from 0 to the part's size.
    """
    leaves, treedef = jax.tree.flatten(groups)
    if treedef != layout.treedef:
        raise ValueError(
            f"groups must be a pytree like the parameters, {layout.treedef}, got "
            f"{treedef}"
        )
    for leaf in leaves:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.integer):
            raise ValueError(f"groups must be integers, got {jnp.result_type(leaf)}")
    parts = _by_part(leaves, layout, int)
    for part in parts:
        if is_concrete(part) and ((part < 0) | (part >= part.size)).any():
            raise ValueError(
                "groups must be from 0 and less than the number of the layer's weights,"
                f" {part.size}, got {part.min()} to {part.max()}"
            )
    return parts


def _by_part(leaves: list[Any], layout: Layout, dtype: Any) -> tuple[Array, ...]:
    """Numbers of every weight, cut into the parts of the layout."""
    pairs = zip(leaves, layout.shapes, strict=True)
    whole = [jnp.broadcast_to(jnp.asarray(leaf, dtype), shape) for leaf, shape in pairs]
    vector = layout.vector(jax.tree.unflatten(layout.treedef, whole))
    return tuple(split(vector, layout.sizes))
