"""What the curvature is of: a model, its likelihood, and the kind of curvature."""

from __future__ import annotations

from dataclasses import field, replace
from typing import Any, Self

from ngvi.fisher.batches import Batch, count
from ngvi.fisher.kinds import Kind
from ngvi.fisher.layers import Network
from ngvi.fisher.layers.network import Apply
from ngvi.fisher.likelihoods import Likelihood
from ngvi.pytrees import pytree


@pytree
class Problem:
    """A model at its parameters, with data; `jit` knows it by all but the numbers."""

    likelihood: Likelihood
    params: Any
    data: Batch
    """All examples."""
    apply: Apply = field(metadata={"static": True})
    kind: Kind = field(metadata={"static": True})
    network: Network = field(metadata={"static": True})
    batch_size: int | None = field(metadata={"static": True})
    """How many examples to hold in memory; None for what suits the structure."""

    @property
    def count(self) -> int:
        """N."""
        return count(self.data)

    def with_kind(self, kind: Kind) -> Self:
        """The same model and data."""
        return replace(self, kind=kind)
