"""How a loss's gradient and curvature are had, from weights drawn from q.

With ℓ̄ the mean loss over the data, g = E_q[∇ℓ̄] and H = E_q[∇²ℓ̄] are estimated from a
batch of B examples:

| measure            | ĥ                                   | used by                |
|--------------------|-------------------------------------|------------------------|
| `FromFisher`       | the engine's, in many structures    | VOGN, K-FAC, full      |
| `EigenMoments`     | second moments in K-FAC's basis     | noisy EK-FAC           |
| `LeadingGradients` | gradients of examples, cut to rank  | SLANG                  |

All are positive semidefinite, and unbiased for a Gauss-Newton or Fisher matrix; those
of `ngvi.nets.gradient_measures`, which need no more than ĝ, are neither. `EigenMoments`
is in `ngvi.nets.eigen_moments`.

A measure also says what the running average s of ĥ is, and how a precision is made of
it: S = (N/κ) s + δ.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.fisher.batches import Batch, count
from ngvi.fisher.gradient import with_gradient
from ngvi.fisher.jacobians import Backpropagated, parts
from ngvi.fisher.kinds import Kind
from ngvi.fisher.likelihoods import Likelihood
from ngvi.fisher.problem import Problem
from ngvi.fisher.structures.base import Averaged
from ngvi.fisher.structures.exact import DiagonalStructure
from ngvi.linalg import (
    KroneckerFactors,
    LowRank,
    PositiveDefinite,
    Semidefinite,
    SemidefiniteBlocks,
    SemidefiniteDense,
    SemidefiniteDiagonal,
)
from ngvi.mirror.site import site_step
from ngvi.nets.net import Net
from ngvi.nets.pieces import over_parts

Site = Any
"""The running average s: a `Semidefinite`, or what one is made of."""


class Draw(NamedTuple):
    """Where a measure is taken: weights drawn from q, of a net with its likelihood."""

    net: Net
    likelihood: Likelihood
    w: Float[Array, "p"]
    mean: Float[Array, "p"]
    precision: PositiveDefinite

    def problem(self, kind: Kind, batch: Batch) -> Problem:
        """What the Fisher engine takes."""
        return self.net.problem(self.w, self.likelihood, kind, batch)


class Estimate(NamedTuple):
    """Of the mean loss over a batch."""

    gradient: Float[Array, "p"]
    curvature: Site
    outputs: Any


class Measure(ABC):
    """How gradient and curvature are had; hashable, so that `jit` knows it."""

    @property
    def needs_key(self) -> bool:
        """Whether labels are drawn."""
        kind = getattr(self, "kind", None)
        return kind is not None and kind.needs_key

    def batch(self, x: Any, y: Any, key: Key[Array, ""]) -> Batch:
        """Examples with the keys that are needed."""
        return Batch(x, y, jax.random.split(key, count(x)) if self.needs_key else None)

    @abstractmethod
    def measure(self, draw: Draw, batch: Batch, site: Site) -> Estimate:
        """ĝ and ĥ of one draw.

        Args:
            draw: of the weights; the likelihood is that of now.
            batch: B examples with labels, and keys for labels that are drawn.
            site: s.
        """

    @abstractmethod
    def begin(
        self, net: Net, likelihood: Likelihood, batch: Batch, value: float
    ) -> Site:
        """s = value · I, of the form that `measure` gives for such a batch."""

    def measure_in_parts(
        self, draw: Draw, batch: Batch, site: Site, parts: int
    ) -> Estimate:
        """The same of a batch that is taken in so many parts, one after the other."""

        def means(part: Batch) -> tuple[tuple[Any, Site], Any]:
            gradient, curvature, outputs = self.measure(draw, part, site)
            return (gradient, curvature), outputs

        (gradient, curvature), outputs = over_parts(means, batch, parts)
        return Estimate(gradient, curvature, outputs)

    def mean(self, curvatures: Site) -> Site:
        """Over draws, which are along the first axis of every leaf."""
        return jax.tree.map(lambda leaf: leaf.mean(0), curvatures)

    def average(self, site: Site, curvature: Site, weight: Any) -> Site:
        """(1 − w) s + w ĥ."""
        return site_step(site, curvature, weight)

    def random_part(self, net: Net) -> int | None:
        """The one layer of the net whose weights are drawn; None for all weights."""
        return None

    def refresh(self, site: Site) -> Site:
        """What is renewed only now and then, before it is made a precision of."""
        return site

    def curvature(self, site: Site) -> Semidefinite:
        """s as a matrix."""
        return site


@dataclass(frozen=True)
class FromFisher(Measure):
    """The curvature of the Fisher engine, from the same pass as the gradient.

    Args:
        kind: of `ngvi.fisher.kinds`.
        structure: one that is a mean over examples.
    """

    kind: Kind
    structure: Averaged

    def measure(self, draw: Draw, batch: Batch, site: Site) -> Estimate:
        problem = draw.problem(self.kind, batch)
        gradient, sums, outputs = with_gradient(
            problem, lambda sent_back: self.structure.sums(problem, sent_back)
        )
        return Estimate(
            gradient, self._joined(self.structure.build(problem, sums)), outputs
        )

    def begin(
        self, net: Net, likelihood: Likelihood, batch: Batch, value: float
    ) -> Semidefinite:
        def shape(w: Float[Array, "p"], batch: Batch) -> Semidefinite:
            problem = net.problem(w, likelihood, self.kind, batch)
            return self._joined(self.structure.compute(problem, None))

        return _multiple_of_identity(jax.eval_shape(shape, net.zeros, batch), value)

    def _joined(self, matrix: Semidefinite) -> Semidefinite:
        """A diagonal is one, like w, and not in parts."""
        if isinstance(self.structure, DiagonalStructure):
            return SemidefiniteDiagonal(matrix.diagonal())
        return matrix


@dataclass(frozen=True)
class LeadingGradients(Measure):
    """The gradients of the examples themselves, of which L directions are kept.

    What is cut off goes to the diagonal, so that the diagonal of s is that of VOGN.

    Args:
        rank: L.
        kind: of curvature.

    Source: Mishkin, Kunstner, Nielsen, Schmidt and Khan (2018), SLANG: fast structured
    covariance approximations for Bayesian deep learning with natural gradient.
    """

    rank: int
    kind: Kind

    def measure(self, draw: Draw, batch: Batch, site: LowRank) -> Estimate:
        problem = draw.problem(self.kind, batch)

        def rows(sent_back: Backpropagated) -> Float[Array, "r p"]:
            whole = [part.rows() for part in parts(problem, sent_back)]
            joined = jnp.concatenate(whole, -1)
            return joined.reshape(-1, joined.shape[-1])

        gradient, found, outputs = with_gradient(problem, rows)
        values = jnp.ones(len(found), found.dtype)
        return Estimate(gradient, LowRank.from_vectors(found.T, values), outputs)

    def begin(
        self, net: Net, likelihood: Likelihood, batch: Batch, value: float
    ) -> LowRank:
        rank = min(self.rank, net.dim)
        vectors = jnp.zeros((net.dim, rank), net.dtype)
        return LowRank(vectors, jnp.zeros(rank, net.dtype), net.zeros + value)

    def measure_in_parts(
        self, draw: Draw, batch: Batch, site: LowRank, parts: int
    ) -> Estimate:
        if parts > 1:
            raise ValueError(
                "accumulate is not for slang, which keeps the gradients of all examples"
                " of a batch at once: take smaller batches, or vogn"
            )
        return self.measure(draw, batch, site)

    def mean(self, curvatures: LowRank) -> LowRank:
        """With the directions of all draws, beside each other."""
        draws, dim, _ = curvatures.vectors.shape
        vectors = curvatures.vectors.transpose(1, 0, 2).reshape(dim, -1)
        return LowRank.from_vectors(vectors, curvatures.values.reshape(-1) / draws)

    def average(self, site: LowRank, curvature: LowRank, weight: Any) -> LowRank:
        return super().average(site, curvature, weight).truncate(self.rank)


def _multiple_of_identity(matrix: Any, value: float) -> Any:
    """value · I in the structure of a matrix, or of its shapes."""
    match matrix:
        case SemidefiniteBlocks():
            blocks = [_multiple_of_identity(block, value) for block in matrix.blocks]
            return SemidefiniteBlocks(tuple(blocks))
        case SemidefiniteDiagonal():
            return SemidefiniteDiagonal(jnp.full_like(matrix.values, value))
        case SemidefiniteDense():
            shape = matrix.matrix
            return SemidefiniteDense(value * jnp.eye(len(shape), dtype=shape.dtype))
        case KroneckerFactors():
            root = value**0.5
            return KroneckerFactors(
                root * jnp.eye(matrix.left.shape[-1], dtype=matrix.left.dtype),
                root * jnp.eye(matrix.right.shape[-1], dtype=matrix.right.dtype),
            )
    raise TypeError(f"no multiple of the identity in {type(matrix).__name__}")
