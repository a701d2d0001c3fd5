"""K-FAC and EK-FAC: a Kronecker product of two small matrices for every layer.

With ā a layer's inputs and g the gradients at its outputs, over N examples, their T
positions and the columns of the output curvature,

    F_layer ≈ A ⊗ G.

- expand: A = Σ ā āᵀ / (N T), G = Σ g gᵀ / N; exact for a linear model in which every
  position has a loss of its own;
- reduce: A = Σ ⟨ā⟩ ⟨ā⟩ᵀ / N, G = Σ (Σ_t g)(Σ_t g)ᵀ / N, ⟨ā⟩ the mean over positions;
  exact for a linear model that averages the positions before the loss.

EK-FAC keeps the eigenvectors of A and G, and takes for eigenvalues the second moments
of the gradients in that basis, diag(Uᵀ F U): of all matrices with these eigenvectors
the nearest to F.

A layer that scales and shifts, an embedding of more than 2,048 rows and leaves that are
in no layer have no such factors: they get an exact block up to 1,024 parameters, else
an exact diagonal.

Source: Martens and Grosse (2015), Optimizing neural networks with Kronecker-factored
approximate curvature; George et al. (2018), Fast approximate natural gradient descent
in a Kronecker-factored eigenbasis; Eschenhagen et al. (2023), Kronecker-factored
approximate curvature for modern neural network architectures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.fisher.jacobians import (
    Backpropagated,
    Rows,
    by_layer,
    is_factored,
    layer_rows,
    square,
)
from ngvi.fisher.layers import Layer
from ngvi.fisher.problem import Problem
from ngvi.fisher.structures.base import Averaged, mean_over
from ngvi.linalg import (
    KroneckerEigen,
    KroneckerFactors,
    SemidefiniteBlocks,
    SemidefiniteDense,
    SemidefiniteDiagonal,
)

_LARGEST_TABLE = 2_048
_LARGEST_BLOCK = 1_024
_MANY_COLUMNS = 512

Sharing = Literal["expand", "reduce"]


def has_factors(layer: Layer) -> bool:
    """Whether a layer's block is a Kronecker product."""
    if layer.kind == "embedding":
        return layer.inputs <= _LARGEST_TABLE
    return layer.kind in ("dense", "convolution")


@dataclass(frozen=True)
class KroneckerStructure(Averaged):
    """K-FAC.

    Args:
        sharing: see above.
        dtype: that inputs and gradients are rounded to before their products, which are
            summed in single precision: a factor stays positive semidefinite, and each
            entry is right to the rounding of its terms. Their own by default.
    """

    sharing: Sharing = "expand"
    dtype: str | None = None

    def check(self, problem: Problem, count: int) -> None:
        if not problem.kind.definite(problem.likelihood):
            raise ValueError(
                f"{type(problem.kind).__name__} may be indefinite here, and has no "
                "Kronecker factors: take kind='true', or a dense, block-diagonal or "
                "matrix-free structure"
            )

    def sums(self, problem: Problem, sent_back: Backpropagated) -> Any:
        layers = by_layer(problem, sent_back)
        factors = [self._of_layer(*layer, problem.count) for layer in layers]
        return [*factors, *map(_exact, sent_back.rest)]

    def _of_layer(
        self, layer: Layer, inputs: Array, g: Float[Array, "n r t o"], count: int
    ) -> Array | tuple[Array, Array]:
        if not has_factors(layer):
            return _exact(layer_rows(layer, inputs, g))
        a = jax.vmap(layer.one_hot)(inputs)
        if self.sharing == "reduce":
            a, g = a.mean(1, keepdims=True), g.sum(2, keepdims=True)
        flat_a, flat_g = a.reshape(-1, a.shape[-1]), g.reshape(-1, g.shape[-1])
        if self.dtype is not None:
            flat_a, flat_g = flat_a.astype(self.dtype), flat_g.astype(self.dtype)
        return _gram(flat_a) / (count * a.shape[1]), _gram(flat_g)

    def build(self, problem: Problem, means: Any) -> SemidefiniteBlocks:
        return SemidefiniteBlocks(
            tuple(
                KroneckerFactors(*mean) if isinstance(mean, tuple) else _block(mean)
                for mean in means
            )
        )


def _gram(x: Float[Array, "n d"]) -> Float[Array, "d d"]:
    """Xᵀ X; of many columns a quarter, which is there by symmetry, is not computed."""
    times = partial(
        jnp.matmul, preferred_element_type=jnp.promote_types(x.dtype, jnp.float32)
    )
    d = x.shape[1]
    if d < _MANY_COLUMNS:
        return times(x.T, x)
    half = d // 2
    upper = times(x[:, :half].T, x)
    lower = times(x[:, half:].T, x[:, half:])
    return jnp.concatenate([upper, jnp.concatenate([upper[:, half:].T, lower], axis=1)])


def _exact(rows: Float[Array, "n r p"]) -> Array:
    """The sums of a block without factors."""
    part, small = Rows(rows), rows.shape[-1] <= _LARGEST_BLOCK
    return square(part, None) if small else part.squares(None)


def _block(mean: Array) -> SemidefiniteDense | SemidefiniteDiagonal:
    return SemidefiniteDense(mean) if mean.ndim == 2 else SemidefiniteDiagonal(mean)


@dataclass(frozen=True)
class KroneckerEigenStructure(KroneckerStructure):
    """EK-FAC: two passes over the data, one for the basis, one for the scale in it."""

    def compute(
        self, problem: Problem, key: Key[Array, ""] | None
    ) -> SemidefiniteBlocks:
        factors = super().compute(problem, key)
        assert isinstance(factors, SemidefiniteBlocks)
        bases = tuple(
            block.eigen() if isinstance(block, KroneckerFactors) else block
            for block in factors.blocks
        )
        return rescaled(problem, SemidefiniteBlocks(bases))


def rescaled(problem: Problem, basis: SemidefiniteBlocks) -> SemidefiniteBlocks:
    """EK-FAC in given eigenvectors: the second moments of these data's gradients."""
    means = mean_over(
        problem, lambda sent_back: second_moments(problem, sent_back, basis)
    )
    return with_moments(basis, means)


def with_moments(basis: SemidefiniteBlocks, means: Any) -> SemidefiniteBlocks:
    """The eigenvectors of a basis with the means of `second_moments`."""
    pairs = zip(basis.blocks, means, strict=True)
    return SemidefiniteBlocks(
        tuple(
            KroneckerEigen(block.left_vectors, block.right_vectors, mean)
            if isinstance(block, KroneckerEigen)
            else _block(mean)
            for block, mean in pairs
        )
    )


def second_moments(
    problem: Problem, sent_back: Backpropagated, basis: SemidefiniteBlocks
) -> list[Array]:
    """Of the gradients in the directions of a basis; sums over examples."""
    moments = []
    layers = by_layer(problem, sent_back)
    for (layer, inputs, g), block in zip(layers, basis.blocks, strict=False):
        if not isinstance(block, KroneckerEigen):
            moments.append(_exact(layer_rows(layer, inputs, g)))
            continue
        left, right = block.left_vectors, block.right_vectors
        if is_factored(layer):
            outer = ((g[:, :, 0] @ right) ** 2).sum(1)
            moments.append(((inputs[:, 0] @ left) ** 2).T @ outer)
        else:
            rows = layer_rows(layer, inputs, g)
            matrices = rows.reshape(*rows.shape[:2], layer.inputs, layer.outputs)
            moments.append(((left.T @ matrices @ right) ** 2).sum((0, 1)))
    return [*moments, *map(_exact, sent_back.rest)]
