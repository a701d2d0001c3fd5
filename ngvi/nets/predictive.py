"""Predictions of a net whose weights are uncertain: averages over draws of them.

With w_s ~ q, s = 1 … S, and f_s = f(w_s, x):

    p(y | x)  ≈ (1/S) Σ p(y | f_s),
    E[y | x]  ≈ the mean of E[y | f_s],
    var[y | x] ≈ the variance of E[y | f_s] + the mean of var[y | f_s].

The variance's first part is what the weights do not know, its second the noise. Where
the noise's precision γ has a posterior of its own, p(y | f_s) is Student's t.

The same draws serve all rows, and a row's prediction does not depend on the others.
Of a linearised net see `ngvi.nets.linear_outputs`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ngvi.fisher.batches import count
from ngvi.fisher.likelihoods import (
    Bernoulli,
    Gaussian,
    HeteroscedasticGaussian,
    Likelihood,
    Poisson,
)
from ngvi.fisher.problem import Apply
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


class Moments(NamedTuple):
    """Of y at every row."""

    mean: Array
    sd: Array
    """Of y, its noise included; infinite where the noise has no variance."""
    sd_of_mean: Array
    """Of E[y | f] over the weights alone."""


class At(NamedTuple):
    """Some rows, with what is drawn for all of them."""

    outputs: Any
    """f, the draws first."""
    y: Any
    keys: Key[Array, "b"]
    posterior: Any
    noise: ObservationNoise | None
    """Where it is learned: q(γ) of every draw, that of its component in a mixture."""
    noise_sd: Float[Array, "s"] | None
    """1/√γ of every draw, where the noise is learned."""
    levels: Any


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
        return _swapped(self.over_rows(_outputs, x, key, joint=True))

    def moments(self, x: Any, key: Key[Array, ""]) -> Moments:
        """Mean and sd of y.

        The noise's variance is exact for Gaussian, Bernoulli and Poisson labels; for
        others one label is drawn for every draw of the weights.
        """
        return self.over_rows(_moments, x, key)

    def probabilities(self, x: Any, key: Key[Array, ""]) -> Float[Array, "n C"]:
        """Of the classes; of one, for a single logit."""
        return self.over_rows(_mean, x, key)

    def log_density(self, x: Any, y: Any, key: Key[Array, ""]) -> Float[Array, "n"]:
        """log p(y | x) of every row.

        Raises:
            ValueError: labels outside of the likelihood's support.
        """
        return self.over_rows(_log_density, x, key, y)

    def sample(self, x: Any, key: Key[Array, ""]) -> Any:
        """Draws of y, one for each of the weights: (S, n, …).

        Rows of a draw share weights and noise: they are draws of all n labels jointly.
        """
        return _swapped(self.over_rows(_labels, x, key, joint=True))

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
        found = self.over_rows(_quantiles, x, key, levels=levels, labels=LABELS)
        return _swapped(found)

    def interval(
        self, x: Any, level: float, key: Key[Array, ""]
    ) -> tuple[Float[Array, "n *o"], Float[Array, "n *o"]]:
        """The lower and upper end of the central interval that holds y with this
        probability."""
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, got {level}")
        tail = (1 - level) / 2
        lower, upper = self.quantiles(x, [tail, 1 - tail], key)
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
        way = _Way.DRAWS
        if self.linearized:
            way = _Way.LINEARIZED_JOINTLY if joint else _Way.LINEARIZED
        return _over_rows(
            reduce, self.apply, way, self.draws, rows, self.posterior, *data, key
        )


LABELS = 16
"""Drawn for every draw of the weights, where quantiles are wanted."""


class _Way(Enum):
    """How outputs are drawn."""

    DRAWS = auto()
    LINEARIZED = auto()
    LINEARIZED_JOINTLY = auto()


STATIC = (0, 1, 2, 3, 4)


@partial(jax.jit, static_argnums=STATIC)
def _over_rows(
    reduce: Callable[[At], Any],
    apply: Apply,
    way: _Way,
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
    if way is not _Way.DRAWS:
        mixture = as_mixture(posterior)
        if way is _Way.LINEARIZED:
            outputs_of, which = marginal_outputs(apply, mixture, draws)
        else:
            outputs_of, which = joint_outputs(apply, mixture, draws, of_weights)
    elif isinstance(posterior, Mixture):
        params, which = posterior.draws(of_weights, draws)
        outputs_of = partial(jax.vmap(apply, (0, None)), params)
    else:
        params = posterior.sample(of_weights, (draws,))
        outputs_of = partial(jax.vmap(apply, (0, None)), params)
    noise, noise_sd = _noise_of_draws(posterior, which, draws), None
    if noise is not None:
        noise_sd = jax.lax.rsqrt(noise.q.sample(of_noise))

    def some(part: Any) -> Any:
        x, y, keys = part
        return reduce(At(outputs_of(x), y, keys, posterior, noise, noise_sd, levels))

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


# -- of some rows ----------------------------------------------------------------------


def _outputs(at: At) -> Any:
    return _swapped(at.outputs)


def _mean(at: At) -> Any:
    return _over_pairs(at.posterior.likelihood.mean, at.outputs).mean(0)


def _moments(at: At) -> Moments:
    means = _over_pairs(at.posterior.likelihood.mean, at.outputs)
    of_weights = means.var(0)
    variance = of_weights + _noise_variance(at, means)
    return Moments(means.mean(0), jnp.sqrt(variance), jnp.sqrt(of_weights))


def _noise_variance(at: At, means: Array) -> Array:
    """The mean of var[y | f] over the draws."""
    likelihood = at.posterior.likelihood
    if at.noise is not None:
        a, b = at.noise.q.concentration, at.noise.q.rate
        tiny = jnp.finfo(a.dtype).tiny
        return jnp.where(a > 1, b / jnp.maximum(a - 1, tiny), jnp.inf).mean()
    if isinstance(likelihood, Gaussian):
        return jnp.asarray(likelihood.scale) ** 2
    if isinstance(likelihood, HeteroscedasticGaussian):
        return jnp.exp(2 * at.outputs[1]).mean(0)
    if isinstance(likelihood, Bernoulli):
        return (means * (1 - means)).mean(0)
    if isinstance(likelihood, Poisson):
        return means.mean(0)
    return ((_labels_drawn(at) - means) ** 2).mean(0)


def _log_density(at: At) -> Float[Array, "b"]:
    if at.noise is not None:
        given = jax.vmap(ObservationNoise.log_predictive, (0, 0, None))
        each = given(at.noise, at.outputs, at.y)
    else:
        log_prob = jax.vmap(at.posterior.likelihood.log_prob)
        each = jax.vmap(log_prob, (0, None))(at.outputs, at.y)
    return jax.scipy.special.logsumexp(each, 0) - jnp.log(len(each))


def _labels(at: At) -> Any:
    return _swapped(_labels_drawn(at))


def _quantiles(at: At) -> Float[Array, "b q *o"]:
    def again(repeat: Any) -> Any:
        keys = jax.vmap(lambda key: jax.random.fold_in(key, repeat))(at.keys)
        return _labels_drawn(at._replace(keys=keys))

    drawn = jax.vmap(again)(jnp.arange(LABELS))
    drawn = drawn.reshape(-1, *drawn.shape[2:])
    return _swapped(jnp.quantile(drawn, at.levels, axis=0))


def _labels_drawn(at: At) -> Any:
    """A label for every draw and row."""
    draws = jax.tree.leaves(at.outputs)[0].shape[0]
    keys = jax.vmap(lambda key: jax.random.split(key, draws), out_axes=1)(at.keys)
    if at.noise_sd is None:
        return jax.vmap(jax.vmap(at.posterior.likelihood.sample))(keys, at.outputs)

    def noisy(key: Key[Array, ""], f: Array, sd: Array) -> Array:
        return f + sd * jax.random.normal(key, f.shape, f.dtype)

    return jax.vmap(jax.vmap(noisy, (0, 0, None)))(keys, at.outputs, at.noise_sd)


def _over_pairs(function: Callable[[Any], Any], outputs: Any) -> Array:
    return jax.vmap(jax.vmap(function))(outputs)


def _swapped(tree: Any) -> Any:
    """Rows before draws, or the other way round."""
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), tree)
