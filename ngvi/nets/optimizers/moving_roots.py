"""Roots of the inverses of Kronecker factors, which move by products alone.

Of a factor S with S⁻¹ = K Kᵀ the root K moves by natural gradients of the Gaussian with
the precision S. W is what is measured, whitened by K: I, where K may stay.

    M ← α M + (1 − α) ½ (W − I),        K ← K (I − ρ M / max(1, ‖M‖_F))

There is no inverse and no decomposition: all of it works in bfloat16. The K may be held
to a *structure*, matrices closed under products; W − I is projected on it, which counts
the entries twice whose mirror images it lacks:

| structure      | entries of K that are not zero                                      |
|----------------|---------------------------------------------------------------------|
| "dense"        | all                                                                 |
| "diagonal"     | the diagonal                                                        |
| "triangular"   | on and below the diagonal                                           |
| "hierarchical" | the diagonal, the first `rank` rows, and of the last `rank` rows    |
|                | what is right of the first `rank` columns                           |

Sources: Lin, Duruisseaux, Leok, Nielsen, Khan and Schmidt (2023), Simplifying momentum-
based positive-definite submanifold optimization with applications to deep learning;
Lin, Dangel, Eschenhagen, Neklyudov, Kristiadi, Turner and Makhzani (2024), Structured
inverse-free natural gradient descent, for the structures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.nets.optimizers.pieces import checked, checked_decay

Structure = Literal["dense", "diagonal", "triangular", "hierarchical"]


@dataclass(frozen=True)
class MovingRoots:
    """How roots move, and what they are held to; checked.

    Args:
        structure: see the module.
        rank: of "hierarchical".
        rate: ρ.
        decay: α.
    """

    structure: Structure
    rank: int
    rate: Any
    decay: Any

    def __post_init__(self) -> None:
        if self.structure not in get_args(Structure):
            raise ValueError(
                "structure must be 'dense', 'diagonal', 'triangular' or "
                f"'hierarchical', got {self.structure!r}"
            )
        checked("rank", self.rank, 1)
        checked("rate", self.rate, 0)
        checked_decay(decay=self.decay)

    def moved(
        self,
        root: Float[Array, "n b *b"],
        momentum: Float[Array, "n b *b"],
        away: Float[Array, "n b *b"],
    ) -> tuple[Float[Array, "n b *b"], Float[Array, "n b *b"]]:
        """K and M a step on: of some matrices, or of the diagonals of some.

        Args:
            root: K.
            momentum: M.
            away: W − I.
        """
        is_matrix = root.ndim == 3
        if is_matrix and self.structure != "dense":
            away = away * self.projection(root.shape[-1])
        m = self.decay * momentum + (1 - self.decay) * (away / 2)
        m = m.astype(root.dtype)
        size = jnp.sqrt((m**2).sum(range(1, m.ndim), keepdims=True))
        step = (self.rate / jnp.maximum(1, size) * m).astype(root.dtype)
        return root - (root @ step if is_matrix else root * step), m

    def projection(self, size: int) -> np.ndarray:
        """What the entries of a symmetric matrix are multiplied by to project it."""
        row, column = np.indices((size, size))
        if self.structure == "dense":
            kept = row >= 0
        elif self.structure == "diagonal":
            kept = row == column
        elif self.structure == "triangular":
            kept = row >= column
        else:
            last = (row >= max(size - self.rank, self.rank)) & (column >= self.rank)
            kept = (row == column) | (row < self.rank) | last
        return np.where(kept, np.where(kept.T, 1, 2), 0)
