"""Predictions of a net whose weights are uncertain: averages over draws of them.

What they are made of is in `ngvi.nets.averages`; how the draws of a linearised net are
had, in `ngvi.nets.linear_outputs`.

The same draws serve all rows, and a row's prediction does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ngvi.fisher.batches import count
from ngvi.fisher.likelihoods import Likelihood
from ngvi.fisher.problem import Apply
from ngvi.nets import averages
from ngvi.nets.averages import At, Moments
from ngvi.nets.linear_outputs import as_mixture, joint_outputs, marginal_outputs
from ngvi.nets.mixture import Mixture
from ngvi.nets.observation_noise import ObservationNoise


class Uncertain(Protocol):
    """What predictions are made of: a pytree such as `WeightPosterior`."""

    @property
    def likelihood(self) -> Likelihood:
        """p(y | f)."""

    @property
    def noise(self) -> ObservationNoise | None:
        """q of the noise's precision, where it is learned."""

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Any:
        """Parameters of the net with these leading axes."""


@dataclass(frozen=True)
class Predictive:
    """Predictions of a net at new x. Compiled once for each method and shapes.

    Args:
        apply: (params, x) ↦ outputs, the examples along the first axis.
        posterior: of the weights.
        draws: S.
        batch_size: pairs of a draw and a row to be evaluated at once, which bounds the
            memory: take less for a large net.
        linearized: of the net linearised about the mean of q (of each component of a
            mixture): for posteriors whose curvature is that of the mean alone, such as
            Laplace's, the nearer to what they describe.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from ngvi.fisher import MLP
        >>> from ngvi.nets import ObservationNoise, full
        >>> net, x, y = MLP((1, 1)), jnp.linspace(-1, 1, 9)[:, None], jnp.ones((9, 1))
        >>> line = full(net, ObservationNoise.begin(), len(x), learning_rate=0.1)
        >>> state = line.init(net.init(jax.random.key(0)), (x, y))
        >>> predictive = Predictive(net, line.posterior(state))
        >>> mean, sd, _ = predictive.moments(x, jax.random.key(1))
        >>> mean.shape, bool((sd > 0).all())
        ((9, 1), True)
    """

    apply: Apply
    posterior: Uncertain
    draws: int = 64
    batch_size: int = 2**16
    linearized: bool = False

    def __post_init__(self) -> None:
        for name in ("draws", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    def outputs(self, x: Any, key: Key[Array, ""]) -> Any:
        """f at every draw: a pytree of leaves (S, n, …)."""
        return averages.swapped(self.over_rows(averages.outputs, x, key, joint=True))

    def moments(self, x: Any, key: Key[Array, ""]) -> Moments:
        """Mean and sd of y.

        The noise's variance is exact for Gaussian, Bernoulli and Poisson labels; for
        others one label is drawn for every draw of the weights.
        """
        return self.over_rows(averages.moments, x, key)

    def probabilities(self, x: Any, key: Key[Array, ""]) -> Float[Array, "n C"]:
        """Of the classes; of one, for a single logit."""
        return self.over_rows(averages.mean, x, key)

    def log_density(self, x: Any, y: Any, key: Key[Array, ""]) -> Float[Array, "n"]:
        """log p(y | x) of every row.

        Raises:
            ValueError: labels outside of the likelihood's support.
        """
        return self.over_rows(averages.log_density, x, key, y)

    def sample(self, x: Any, key: Key[Array, ""]) -> Any:
        """Draws of y, one for each of the weights: (S, n, …).

        Rows of a draw share weights and noise: they are draws of all n labels jointly.
        """
        return averages.swapped(self.over_rows(averages.labels, x, key, joint=True))

    def quantiles(
        self, x: Any, levels: Any, key: Key[Array, ""]
    ) -> Float[Array, "q n *o"]:
        """Quantiles of y, from 16 labels for each draw of the weights.

        Args:
            x: rows.
            levels: between zero and one.
            key: of weights and labels.
        """
        levels = jnp.atleast_1d(jnp.asarray(levels, float))
        found = self.over_rows(
            averages.quantiles, x, key, levels=levels, labels=averages.LABELS
        )
        return averages.swapped(found)

    def interval(
        self, x: Any, level: float, key: Key[Array, ""]
    ) -> tuple[Float[Array, "n *o"], Float[Array, "n *o"]]:
        """The lower and upper end of the central interval that holds y with this
        probability."""
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, got {level}")
        levels = (1 - level) / 2, (1 + level) / 2
        lower, upper = self.quantiles(x, levels, key)
        return lower, upper

    def over_rows(
        self,
        reduce: Callable[[At], Any],
        x: Any,
        key: Key[Array, ""],
        y: Any = None,
        *,
        levels: Any = None,
        labels: int = 1,
        joint: bool = False,
    ) -> Any:
        """A function of the outputs at all draws, for batches of rows.

        Args:
            reduce: to leaves with the rows first. One program is compiled for each.
            x: rows.
            key: of the weights, the noise and what is drawn for each row.
            y: their labels.
            levels: passed on.
            labels: drawn for every pair: the batches are smaller by as much.
            joint: whether it matters that the rows share the draws.
        """
        rows = max(self.batch_size // (self.draws * labels), 1)
        data = x, y, levels
        static = reduce, self.apply, self.linearized, joint, self.draws, rows
        return _over_rows(*static, self.posterior, *data, key)


STATIC = (0, 1, 2, 3, 4, 5)


@partial(jax.jit, static_argnums=STATIC)
def _over_rows(
    reduce: Callable[[At], Any],
    apply: Apply,
    linearized: bool,
    joint: bool,
    draws: int,
    most: int,
    posterior: Any,
    x: Any,
    y: Any,
    levels: Any,
    key: Key[Array, ""],
) -> Any:
    of_weights, of_noise, of_rows = jax.random.split(key, 3)
    which = None
    if linearized:
        mixture = as_mixture(posterior)
        if joint:
            outputs_of, which = joint_outputs(apply, mixture, draws, of_weights)
        else:
            outputs_of, which = marginal_outputs(apply, mixture, draws)
    else:
        if isinstance(posterior, Mixture):
            params, which = posterior.draws(of_weights, draws)
        else:
            params = posterior.sample(of_weights, (draws,))
        outputs_of = partial(jax.vmap(apply, (0, None)), params)
    noise, noise_sd = _noise_of_draws(posterior, which, draws), None
    if noise is not None:
        noise_sd = jax.lax.rsqrt(noise.q.sample(of_noise))

    likelihood = posterior.likelihood

    def some(part: Any) -> Any:
        x, y, keys = part
        return reduce(At(outputs_of(x), y, keys, likelihood, noise, noise_sd, levels))

    n = count(x)
    keys = jax.vmap(partial(jax.random.fold_in, of_rows))(jnp.arange(n))
    if n <= most:
        return some((x, y, keys))
    times = -(-n // most)
    # The last batch is filled with the last row.
    index = jnp.minimum(jnp.arange(times * most), n - 1).reshape(times, most)
    found = jax.lax.map(
        lambda rows: some(jax.tree.map(lambda leaf: leaf[rows], (x, y, keys))), index
    )
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:n], found)


def _noise_of_draws(
    posterior: Any, which: Int[Array, "s"] | None, draws: int
) -> ObservationNoise | None:
    """With a leading axis S; None where the noise is known."""
    if isinstance(posterior, Mixture):
        return jax.tree.map(lambda leaf: leaf[which], posterior.components.noise)
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (draws, *leaf.shape)), posterior.noise
    )
