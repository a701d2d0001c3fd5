"""Curvature for a preconditioner: measured on a batch, averaged over the steps.

| measure          | F                                                                |
|------------------|------------------------------------------------------------------|
| `Measured`       | the Fisher engine's: dense, blocks, diagonal, Kronecker          |
| `Rescaled`       | the second moments in K-FAC's eigenvectors: EK-FAC               |
| `Leading`        | leading eigenvectors and the diagonal, of the last batch alone   |
| `SquaredGradient`| diag(ĝ²), of the batch's mean gradient: RMSProp, Adam            |
| `Products`       | no numbers: products with the batch's F, for conjugate gradients |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Key

from ngvi.fisher.kinds import Kind
from ngvi.fisher.problem import Problem
from ngvi.fisher.structures.base import Averaged, Structure, mean_over
from ngvi.fisher.structures.by_products import LowRankStructure
from ngvi.fisher.structures.kronecker import (
    KroneckerStructure,
    second_moments,
    with_moments,
)
from ngvi.linalg import (
    KroneckerFactors,
    Semidefinite,
    SemidefiniteBlocks,
    SemidefiniteDiagonal,
)
from ngvi.mirror.site import site_step
from ngvi.nets.eigen_moments import Eigen, eigen_of, in_basis, in_eigenbasis
from ngvi.nets.optimizers.devices import Task, cost_of, shared_out
from ngvi.nets.optimizers.freezing import restricted

Site = Any
"""The running average: a `Semidefinite`, or what one is made of."""


class Occasion(NamedTuple):
    """With what a running average is updated, beside a batch."""

    weight: Float[Array, ""]
    """Of the batch in it."""
    renew: Bool[Array, ""]
    """Whether F is to be factorised after it."""
    damping: Float[Array, ""]
    """λ, with η."""
    kept: Float[Array, "p"] | None
    """See `ngvi.nets.optimizers.freezing.restricted`."""
    mesh: Mesh | None
    """Over whose devices factorisations are shared out."""


class Measure(ABC):
    """How F is had; hashable, so that `jit` knows it."""

    kind: Kind
    structure: Structure | None
    """Of the Fisher engine, if it is one."""
    by_layers: bool = True
    """Whether its vectors are in the order of the layers, see `ngvi.fisher.layout`."""
    inverse_free: ClassVar[bool] = False
    """Whether what is kept is of an inverse, so that nothing is factorised."""

    def check(self, problem: Problem, count: int) -> None:
        """Refuse a kind that has no meaning here: see `ngvi.fisher.structures`."""
        if self.structure is not None:
            self.structure.check(problem, count)

    @abstractmethod
    def measure(
        self, problem: Problem, gradient: Float[Array, "p"], key: Key[Array, ""]
    ) -> Site:
        """That of a batch.

        Args:
            problem: the model at its weights with a batch, and the kind.
            gradient: of the mean loss.
            key: of a random basis.
        """

    def begin(
        self, problem: Problem, gradient: Float[Array, "p"], key: Key[Array, ""]
    ) -> Site:
        """What is there before the first step: zeros of the form of `measure`."""
        shapes = jax.eval_shape(self.measure, problem, gradient, key)
        return jax.tree.map(lambda s: jnp.zeros(s.shape, gradient.dtype), shapes)

    def update(
        self,
        site: Site,
        problem: Problem,
        gradient: Float[Array, "p"],
        key: Key[Array, ""],
        occasion: Occasion,
    ) -> Site:
        """(1 − w) s + w of the batch's.

        Args:
            site: s.
            problem, gradient, key: as in `measure`.
            occasion: with w.
        """
        new = restricted(self.measure(problem, gradient, key), occasion.kept)
        return self.mixed(site, new, occasion.weight)

    def mixed(self, site: Site, new: Site, weight: Any) -> Site:
        """(1 − w) s + w s′, in the precision of s."""
        new = jax.tree.map(lambda old, leaf: leaf.astype(old.dtype), site, new)
        return site_step(site, new, weight)

    def natural(
        self, site: Site, damping: Float[Array, ""], gradient: Float[Array, "p"]
    ) -> Float[Array, "p"]:
        """(F + λ)⁻¹ g, where it takes no factorisation."""
        raise NotImplementedError(f"{type(self).__name__} is no inverse")

    def matrix(self, site: Site) -> Semidefinite:
        """F."""
        return site


@dataclass(frozen=True)
class Measured(Measure):
    """A structure of the Fisher engine that is a mean over examples."""

    kind: Kind
    structure: Averaged

    def measure(
        self, problem: Problem, gradient: Float[Array, "p"], key: Key[Array, ""]
    ) -> Semidefinite:
        return self.structure.compute(problem, None)


@dataclass(frozen=True)
class Rescaled(Measure):
    """EK-FAC: the factors are averaged for a basis, the second moments in it.

    When the basis is renewed, the moments so far are restricted to the new one.
    """

    kind: Kind
    structure: KroneckerStructure

    def measure(
        self, problem: Problem, gradient: Float[Array, "p"], key: Key[Array, ""]
    ) -> Eigen:
        factors: Any = self.structure.compute(problem, None)
        return Eigen(factors, in_eigenbasis(factors))

    def update(
        self,
        site: Eigen,
        problem: Problem,
        gradient: Float[Array, "p"],
        key: Key[Array, ""],
        occasion: Occasion,
    ) -> Eigen:
        weight, kept = occasion.weight, occasion.kept
        factors = restricted(self.structure.compute(problem, None), kept)
        site = site._replace(factors=self.mixed(site.factors, factors, weight))

        def renewed(site: Eigen) -> Eigen:
            def task(block: Semidefinite) -> Task:
                factored = isinstance(block, KroneckerFactors)
                return Task(eigen_of, (block,), cost_of(block) if factored else 0)

            tasks = [task(block) for block in site.factors.blocks]
            bases = shared_out(tasks, occasion.mesh)
            return in_basis(site, SemidefiniteBlocks(tuple(bases)))

        site = jax.lax.cond(occasion.renew, renewed, lambda site: site, site)

        def sums(sent_back: Any) -> Any:
            return second_moments(problem, sent_back, site.moments)

        means = mean_over(problem, sums)
        new = restricted(with_moments(site.moments, means), kept)
        return site._replace(moments=self.mixed(site.moments, new, weight))

    def matrix(self, site: Eigen) -> Semidefinite:
        return site.moments


@dataclass(frozen=True)
class Leading(Measure):
    """Leading eigenvectors of the last batch: averages would have more of them."""

    kind: Kind
    structure: LowRankStructure
    by_layers = False

    def measure(
        self, problem: Problem, gradient: Float[Array, "p"], key: Key[Array, ""]
    ) -> Semidefinite:
        return self.structure.compute(problem, key)

    def mixed(self, site: Site, new: Site, weight: Any) -> Site:
        return new


@dataclass(frozen=True)
class SquaredGradient(Measure):
    """diag(ĝ²)."""

    kind: Kind
    structure = None

    def measure(
        self, problem: Problem, gradient: Float[Array, "p"], key: Key[Array, ""]
    ) -> SemidefiniteDiagonal:
        return SemidefiniteDiagonal(gradient**2)


@dataclass(frozen=True)
class Products(Measure):
    """Nothing is kept: a step solves with the products of its own batch."""

    kind: Kind
    structure = None
    by_layers = False

    def measure(
        self, problem: Problem, gradient: Float[Array, "p"], key: Key[Array, ""]
    ) -> None:
        return None
