"""SINGD: roots of the inverses of K-FAC's factors, which move by products alone.

A layer's Fisher matrix is taken for S ⊗ T, of its d inputs and e outputs, with
S⁻¹ = K Kᵀ and T⁻¹ = C Cᵀ, and K and C move as `ngvi.nets.optimizers.moving_roots` says.
With K-FAC's factors A and G of a batch they go towards A ⊗ G + λ:

    H = Kᵀ A K,   J = Cᵀ G C,
    W = tr J/e H + λ tr(Cᵀ C)/e Kᵀ K,     for C with the parts exchanged,
    natural gradient K Kᵀ ∇L C Cᵀ.

`ngvi.nets.optimizers.inverse_free` does the same with the gradient alone. Layers
without factors have their exact block, averaged, damped and solved with.

Source: Lin, Dangel, Eschenhagen, Neklyudov, Kristiadi, Turner and Makhzani (2024),
Structured inverse-free natural gradient descent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.fisher.kinds import Kind
from ngvi.fisher.problem import Apply, Problem
from ngvi.fisher.structures import KroneckerStructure
from ngvi.linalg import KroneckerFactors
from ngvi.linalg.batching import join, split
from ngvi.nets.optimizers.freezing import restricted
from ngvi.nets.optimizers.measures import Measure, Occasion
from ngvi.nets.optimizers.moving_roots import MovingRoots, Structure
from ngvi.nets.optimizers.optimizer import CurvatureOptimizer
from ngvi.nets.optimizers.rows import KindName, Sharing, kind_of, made
from ngvi.nets.schedules import Number


class Side(NamedTuple):
    """Of a layer's inputs or outputs."""

    root: Float[Array, "d d"]
    """K or C; zero before the first batch."""
    momentum: Float[Array, "d d"]
    """M."""


class Layer(NamedTuple):
    inputs: Side
    outputs: Side


@dataclass(frozen=True)
class InverseFree(Measure):
    """Roots that move; see the module."""

    kind: Kind
    structure: KroneckerStructure
    roots: MovingRoots
    inverse_free: ClassVar[bool] = True

    def measure(
        self, problem: Problem, gradient: Float[Array, "p"], key: Key[Array, ""]
    ) -> Any:
        return self.structure.compute(problem, None)

    def begin(
        self, problem: Problem, gradient: Float[Array, "p"], key: Key[Array, ""]
    ) -> list[Any]:
        zeros: Any = super().begin(problem, gradient, key)
        return [
            Layer(Side(b.left, b.left), Side(b.right, b.right))
            if isinstance(b, KroneckerFactors)
            else b
            for b in zeros.blocks
        ]

    def update(
        self,
        site: list[Any],
        problem: Problem,
        gradient: Float[Array, "p"],
        key: Key[Array, ""],
        occasion: Occasion,
    ) -> list[Any]:
        new = restricted(self.measure(problem, gradient, key), occasion.kept)
        return [
            self._moved(old, block, occasion.damping)
            if isinstance(old, Layer)
            else self.mixed(old, block, occasion.weight)
            for old, block in zip(site, new.blocks, strict=True)
        ]

    def _moved(self, old: Layer, new: KroneckerFactors, damping: Array) -> Layer:
        a, g = (m.astype(old.inputs.root.dtype) for m in (new.left, new.right))
        # At first multiples of I, right on average.
        scale = (_mean(a) * _mean(g) + damping) ** -0.25
        k, c = (
            jnp.where((side.root != 0).any(), side.root, scale * _one(side.root))
            for side in old
        )
        (h, kk), (j, cc) = ((r.T @ m @ r, r.T @ r) for r, m in ((k, a), (c, g)))
        of_k = _mean(j) * h + damping * _mean(cc) * kk
        of_c = _mean(h) * j + damping * _mean(kk) * cc
        return Layer(
            self._side(k, old.inputs.momentum, of_k),
            self._side(c, old.outputs.momentum, of_c),
        )

    def _side(self, root: Array, momentum: Array, white: Array) -> Side:
        """A step on; `white` is W."""
        away = white - _one(root)
        moved = self.roots.moved(root[None], momentum[None], away[None])
        return Side(*(one[0] for one in moved))

    def natural(
        self, site: list[Any], damping: Float[Array, ""], gradient: Float[Array, "p"]
    ) -> Float[Array, "p"]:
        sizes = tuple(
            len(one.inputs.root) * len(one.outputs.root)
            if isinstance(one, Layer)
            else one.dim
            for one in site
        )
        solved = []
        for one, part in zip(site, split(gradient, sizes), strict=True):
            if isinstance(one, Layer):
                k, c = one.inputs.root, one.outputs.root
                x = part.reshape(len(k), len(c))
                solved.append((k @ (k.T @ x @ c) @ c.T).reshape(-1))
            else:
                solved.append(one.damp(damping).solve(part))
        return join(solved)


def _one(like: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """I."""
    return jnp.eye(len(like), dtype=like.dtype)


def _mean(matrix: Float[Array, "d d"]) -> Float[Array, ""]:
    """Of the diagonal."""
    return jnp.trace(matrix) / len(matrix)


def singd(
    apply: Apply,
    likelihood: Any,
    learning_rate: Number | None = None,
    *,
    kind: KindName = "sampled",
    sharing: Sharing = "expand",
    factor_dtype: str | None = None,
    structure: Structure = "dense",
    rank: int = 8,
    rate: float = 0.05,
    decay: float = 0.5,
    **settings: Any,
) -> CurvatureOptimizer:
    """Structured inverse-free natural gradient descent; see the module.

    Args:
        apply, likelihood: as in `ngvi.fisher.fisher`.
        learning_rate: a number or a schedule, with a momentum of 0.9 and a damping that
            stays; None for those of the quadratic model, with one that is adapted. A
            number has to be small while K and C are still far off.
        kind, sharing, factor_dtype: as in `kfac`.
        structure, rank: of K and C, as in `inverse_free_shampoo`.
        rate: ρ.
        decay: α.
        **settings: see `Settings`; `measure_every=` steps between two of K and C.
    """
    factors = KroneckerStructure(sharing, factor_dtype)
    roots = MovingRoots(structure, rank, rate, decay)
    measure = InverseFree(kind_of(kind), factors, roots)
    by_model = learning_rate is None
    defaults = {
        "learning_rate": learning_rate,
        "momentum": None if by_model else 0.9,
        "damping": 1e-2,
        "adapt_every": 5 if by_model else 0,
        "refresh": settings.get("measure_every", 1),
    }
    return made(apply, likelihood, measure, defaults, settings)
