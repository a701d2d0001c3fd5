"""ℓ as a sum over batches of data, of which one at a time is held.

    ℓ(z) = −log prior(z) − Σ_b log lik(batch b | z)

The estimate of a natural gradient is linear in ℓ. So an epoch that adds up ℓ and ∇ℓ at
the draws of one q has the estimate that a fit with all data would have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.bayes.reader import Numbered
from ngvi.bayes.target import Data, Target, data_part, prior_part
from ngvi.families import Gaussian
from ngvi.mirror.draws import Ladder
from ngvi.mirror.estimates import Estimate, FirstOrder

# Numbers of draws and rows that are evaluated in one go.
_NUMBERS_AT_ONCE = 2**18

Part = Callable[[Target, Data, Array], Array]


class Batches(Protocol):
    """What reads the data, epoch after epoch."""

    epoch: int
    """Complete passes so far."""
    rows: int
    """Of an epoch."""

    @property
    def ended(self) -> bool:
        """No further pass is possible or allowed."""
        ...

    def __iter__(self) -> Iterator[Numbered]: ...


class OneBatch:
    """A single batch, as if that were all."""

    ended = False

    def __init__(self, read: Numbered) -> None:
        self.read, self.epoch, self.rows = read, 0, read.rows

    def __iter__(self) -> Iterator[Numbered]:
        yield self.read


class Total(NamedTuple):
    """A sum of many batches that does not lose the last digits of each."""

    sum: Any
    excess: Any
    """What rounding has added to it."""


def added(total: Total | None, part: Any) -> Total:
    """Kahan's compensated sum."""
    if total is None:
        return Total(part, jax.tree.map(jnp.zeros_like, part))
    due = jax.tree.map(jnp.subtract, part, total.excess)
    new = jax.tree.map(jnp.add, total.sum, due)
    excess = jax.tree.map(lambda n, s, d: (n - s) - d, new, total.sum, due)
    return Total(new, excess)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _gradients(
    part: Part,
    target: Target,
    estimator: FirstOrder,
    data: Data,
    points: Float[Array, "n d"],
    total: Total | None,
) -> Total:
    """A part of ℓ and its gradients at some points, added to a total."""
    return added(total, estimator.at(partial(part, target, data), points))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _values(
    part: Part,
    target: Target,
    at_once: int,
    data: Data,
    points: Float[Array, "s d"],
    total: Total | None,
) -> Total:
    """A part of ℓ at some points, added to a total."""
    function = partial(part, target, data)
    batch = min(at_once, points.shape[0])
    return added(total, jax.lax.map(function, points, batch_size=batch))


@partial(jax.jit, static_argnums=0)
def _assembled(
    estimator: FirstOrder,
    q: Gaussian,
    eps: Float[Array, "k n d"],
    values: Float[Array, "kn"],
    gradients: Float[Array, "kn d"],
) -> Estimate:
    """The estimate from all batches of draws of a level."""
    parts = eps, values.reshape(eps.shape[:2]), gradients.reshape(eps.shape)
    estimates = jax.lax.map(lambda part: estimator.assemble(q, *part), parts)
    return jax.tree.map(lambda x: x.mean(0), estimates)


@jax.jit
def placed(q: Gaussian, eps: Float[Array, "s d"]) -> Float[Array, "s d"]:
    """m + A ε."""
    return q.place(eps)


def silent(rows: int) -> None:
    """Shows nothing."""


class Sums:
    """ℓ and its estimates, each an epoch.

    Args:
        target: static.
        batches: what reads the data.
        data: of any batch, with the prior and the weights.
        shown: is told how many rows were read.
    """

    def __init__(
        self,
        target: Target,
        batches: Batches,
        data: Data,
        shown: Callable[[int], None] = silent,
    ) -> None:
        self.target, self.batches, self.data, self.shown = target, batches, data, shown

    def estimate(
        self, estimator: FirstOrder, q: Gaussian, draws: Ladder, level: int, also: bool
    ) -> tuple[Estimate, Array | None]:
        """The estimate at q, and with `also` ℓ at the unseen draws."""
        count = 2**level
        eps = draws.batches[count - 1 : 2 * count - 1]
        points = placed(q, eps.reshape(-1, eps.shape[-1]))
        unseen = placed(q, draws.check) if also else None
        total = _gradients(prior_part, self.target, estimator, self.data, points, None)
        values = None if unseen is None else self._prior_values(unseen)
        for data in self._epoch():
            total = _gradients(data_part, self.target, estimator, data, points, total)
            if unseen is not None:
                values = self._batch_values(data, unseen, values)
            jax.block_until_ready((total, values))  # else batches queue up in memory
        estimate = _assembled(estimator, q, eps, *total.sum)
        return estimate, None if values is None else values.sum

    def values(self, points: Float[Array, "s d"]) -> Float[Array, "s"]:
        """ℓ at some points."""
        total = self._prior_values(points)
        for data in self._epoch():
            total = jax.block_until_ready(self._batch_values(data, points, total))
        return total.sum

    def not_finite(self, point: Float[Array, "d"]) -> Numbered | None:
        """The first batch whose part of ℓ is not finite at a point."""
        for read in self.batches:
            data = read.data._replace(power=self.data.power)
            if not np.isfinite(self._batch_values(data, point[None], None).sum).all():
                return read
        return None

    def _epoch(self) -> Iterator[Data]:
        """The batches, with the weight of their likelihood."""
        for read in self.batches:
            yield read.data._replace(power=self.data.power)
            self.shown(read.rows)

    def _prior_values(self, points: Array) -> Total:
        return _values(prior_part, self.target, 1024, self.data, points, None)

    def _batch_values(self, data: Data, points: Array, total: Total | None) -> Total:
        # Arrays that a plate subsamples are not read whole.
        arrays = data.arrays if data.rows is None else tuple(data.rows.values())
        numbers = max(sum(array.size for array in arrays), 1)
        at_once = int(np.clip(_NUMBERS_AT_ONCE // numbers, 16, 1024))
        return _values(data_part, self.target, at_once, data, points, total)


@partial(jax.jit, static_argnums=0)
def _sites(target: Target, data: Data, points: Array) -> dict[str, Array]:
    return jax.vmap(partial(target.constrain, data))(points)


class Streamed:
    """The density of a posterior whose data are not held; see `ngvi.bayes.density`.

    Args:
        sums: ℓ; None where the data cannot be read again: then log p is not known.
        target: static.
        data: of one batch, for the values of the sites.
        left_out: deterministic sites that are of a batch.
    """

    def __init__(
        self,
        sums: Sums | None,
        target: Target,
        data: Data,
        left_out: frozenset[str],
    ) -> None:
        self.sums, self.target, self.data = sums, target, data
        self.left_out = left_out

    def at(
        self, points: Float[Array, "s d"], at_once: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        if self.sums is None:
            log_p = np.full(points.shape[0], np.nan)
        else:
            log_p = -np.asarray(self.sums.values(points))
        sites = jax.device_get(_sites(self.target, self.data, points))
        return log_p, {n: v for n, v in sites.items() if n not in self.left_out}


def of_a_batch(
    target: Target, one: Data, other: Data, point: Float[Array, "d"]
) -> frozenset[str]:
    """The deterministic sites that are not the same for all batches."""
    first, second = (
        jax.device_get(_sites(target, data, point[None])) for data in (one, other)
    )
    return frozenset(
        name for name in first if not np.array_equal(first[name], second.get(name))
    )
