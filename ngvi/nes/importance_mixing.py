"""Importance mixing: draws of an earlier distribution used again, values and all.

A population xᵢ ~ q becomes one of q′ in which as many as possible are old ones:

    forward   an old x is kept with probability min(1, (1 − α) q′(x)/q(x)),
    reverse   a new x ~ q′ is let in with probability max(α, 1 − q(x)/q′(x)),

until the places of those not kept are filled. The two densities, min(q, (1 − α)q′) and
max(αq′, q′ − q), add up to q′: each member of the population is distributed as q′, for
any α. It is the least part of fresh draws; the smaller the step from q to q′, the fewer
more there are.

The number of fresh draws is random. All shapes are nevertheless fixed: `mix` says by a
mask which of the n points have a value already. Host-side, only the others are
evaluated; in a compiled loop all may be, and only the fresh ones counted.

Old draws are not independent of the distribution that learned from them. A search with
a covariance as good as unchanged uses fewer evaluations; one that moves fast gains
little, and paths that add up steps see some of them twice.

Source: Sun, Wierstra, Schaul and Schmidhuber (2009), Efficient natural evolution
strategies; Wierstra et al. (2014), Natural evolution strategies.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from ngvi.families import Gaussian
from ngvi.nes.draws import independent

_BATCHES = 100
"""Of n new draws each: as the places are αn or more and one draw in 1/α is let in, a
few are enough; what is then still empty is filled with draws let in unseen."""


class Population(NamedTuple):
    """Points and what is known of them."""

    q: Gaussian
    """That they are draws of."""
    points: Float[Array, "n d"]
    values: Float[Array, "n"]


class Mixture(NamedTuple):
    """Draws of a new distribution, some of them old points."""

    eps: Float[Array, "n d"]
    """Base draws, for `tell`."""
    points: Float[Array, "n d"]
    values: Float[Array, "n"]
    """NaN where `fresh`."""
    fresh: Bool[Array, "n"]
    """Which are to be evaluated."""


def mix(
    key: Key[Array, ""],
    q: Gaussian,
    old: Population,
    refresh: float | Float[Array, ""] = 0.01,
) -> Mixture:
    """A population of q that keeps of an old one what it can.

    Args:
        key: of the draws and of the decisions.
        q: the new distribution, q′.
        old: the population before, of q.
        refresh: α, the least part of fresh draws, 0 < α ≤ 1.

    Returns:
        As many draws as the old population has, in its places.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from ngvi import nes
        >>> strategy, key = nes.snes(3, popsize=50), jax.random.key(0)
        >>> state, evaluations = nes.init(strategy, jnp.ones(3), 0.3), 50
        >>> eps = nes.ask(strategy, state, key)
        >>> points = state.q.place(eps)
        >>> values = (points**2).sum(1)
        >>> for generation in range(30):
        ...     old = nes.Population(state.q, points, values)
        ...     state = nes.tell(strategy, state, eps, values)
        ...     mixed = nes.mix(jax.random.fold_in(key, generation), state.q, old)
        ...     eps, points, fresh = mixed.eps, mixed.points, mixed.fresh
        ...     values = mixed.values.at[fresh].set((points[fresh] ** 2).sum(1))
        ...     evaluations += int(fresh.sum())
        >>> bool(values.min() < 1e-3), evaluations < 30 * 50 * 0.8
        (True, True)
    """
    count = len(old.values)
    of_keeping, of_filling = jax.random.split(key)
    eps = q.precision.whiten(old.points - q.mean)
    ratio = _log_ratio(q, old.q, eps, old.points)
    luck = jnp.log(jax.random.uniform(of_keeping, (count,), q.dtype))
    kept = luck < ratio + jnp.log1p(-jnp.asarray(refresh, q.dtype))
    filled = _fill(of_filling, q, old.q, eps, kept, refresh)
    keep = kept[:, None]
    return Mixture(
        eps=filled,
        points=jnp.where(keep, old.points, q.place(filled)),
        values=jnp.where(kept, old.values, jnp.nan),
        fresh=~kept,
    )


def _log_ratio(
    q: Gaussian, old: Gaussian, eps: Float[Array, "n d"], points: Float[Array, "n d"]
) -> Float[Array, "n"]:
    """log q′(x)/q(x) at x = m′ + A′ε."""
    there = old.precision.whiten(points - old.mean)
    volumes = q.precision.logdet() - old.precision.logdet()
    return ((there**2).sum(1) - (eps**2).sum(1) + volumes) / 2


def _fill(
    key: Key[Array, ""],
    q: Gaussian,
    old: Gaussian,
    eps: Float[Array, "n d"],
    kept: Bool[Array, "n"],
    refresh: float | Float[Array, ""],
) -> Float[Array, "n d"]:
    """The base draws, with new ones in the places of those not kept."""
    count, dim = eps.shape
    Carry = tuple[Int[Array, ""], Float[Array, "n d"], Bool[Array, "n"]]

    def goes_on(carry: Carry) -> Array:
        batch, _, done = carry
        return ~done.all() & (batch <= _BATCHES)

    def one_batch(carry: Carry) -> Carry:
        batch, eps, done = carry
        of_draws, of_luck = jax.random.split(jax.random.fold_in(key, batch))
        new = independent(of_draws, count, dim, q.dtype)
        ratio = _log_ratio(q, old, new, q.place(new))
        chance = jnp.maximum(refresh, -jnp.expm1(-ratio))
        let_in = jax.random.uniform(of_luck, (count,), q.dtype) < chance
        let_in = let_in | (batch == _BATCHES)
        # The k-th that is let in goes to the k-th empty place.
        source = jnp.argsort(~let_in, stable=True)
        place = jnp.cumsum(~done) - 1
        fits = ~done & (place < let_in.sum())
        eps = jnp.where(fits[:, None], new[source[place]], eps)
        return batch + 1, eps, done | fits

    start = (jnp.zeros((), int), eps, kept)
    return jax.lax.while_loop(goes_on, one_batch, start)[1]
