"""Mixtures, in joint coordinates: the component, then what it produced.

The marginal of x is no exponential family, but the joint distribution of x and the
number k of its component is:

    q(k, x) = w_k h(x) exp(⟨λ_k, T(x)⟩ − A(λ_k))
    λ = (θ, (λ_k)),   θ_k = log w_k − A(λ_k) − (log w_K − A(λ_K))  for k < K,
    T = (1[k = j], (1[k = j] T(x))),   μ = (w_j, (w_j μ_j)),
    A(λ) = log Σ_k exp(θ_k + A(λ_k)),  θ_K = 0.

Source: Lin, Khan and Schmidt (2019), Fast and simple natural-gradient variational
inference with mixture of exponential-family approximations, section 3.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ngvi.families.base import ExponentialFamily, Params
from ngvi.families.categorical import with_last
from ngvi.families.domains import REAL_VECTOR, Joint, whole_numbers
from ngvi.families.interface import Interface
from ngvi.families.numpyro_bridge import from_numpyro
from ngvi.families.parameters import branch, check_parameters, family, parameter


@family
class Mixture(ExponentialFamily):
    """A mixture of K members of one family, over events (k, x).

    Args:
        logits: log w up to a constant, shape (*b, K).
        components: a batch of members of shape (*b, K).

    The methods of every family speak of the joint event (k, x), k the component's
    number; those named `marginal_…`, and `mean` and `variance`, speak of x alone.

    Example:
        >>> import jax.numpy as jnp
        >>> from ngvi.families import Normal
        >>> q = Mixture(jnp.zeros(2), Normal(jnp.array([-1.0, 1.0]), 1.0))
        >>> float(q.mean), float(q.variance)
        (0.0, 2.0)
    """

    logits: Float[Array, "*b K"] = parameter(REAL_VECTOR)
    components: ExponentialFamily = branch()

    numpyro_names: ClassVar[tuple[str, ...]] = ("MixtureSameFamily",)

    def __post_init__(self) -> None:
        batch = self.components.batch_shape
        if not batch or jnp.shape(self.logits)[-1:] != batch[-1:]:
            raise ValueError(
                "Mixture: the components must be a batch with one member for each "
                f"logit, got batch shape {batch} and logits of shape "
                f"{jnp.shape(self.logits)}"
            )
        check_parameters(self, batch[:-1])

    @property
    def log_weights(self) -> Float[Array, "*b K"]:
        """log w, normalised."""
        return jax.nn.log_softmax(self.logits)

    @property
    def weights(self) -> Float[Array, "*b K"]:
        """w, summing to one."""
        return jax.nn.softmax(self.logits)

    @property
    def support(self) -> Joint:
        part = self.components.support
        component = whole_numbers(0, self.logits.shape[-1] - 1)
        return Joint((component, part.parts if isinstance(part, Joint) else part))

    @property
    def event_shape(self) -> Any:
        return (), self.components.event_shape

    @property
    def fixed(self) -> dict[str, Any]:
        return {"components": self.components}

    def same_family(self, other: Interface) -> None:
        super().same_family(other)
        assert isinstance(other, Mixture)
        self.components.same_family(other.components)

    @property
    def natural_params(self) -> Params:
        params = self.components.natural_params
        theta = self.log_weights - self.components.log_partition(params)
        return theta[..., :-1] - theta[..., -1:], params

    @classmethod
    def from_natural(cls, params: Params, *, components: ExponentialFamily) -> Self:
        """The mixture with natural parameters λ, components in another one's family."""
        theta, inner = params
        logits = with_last(theta) + components.log_partition(inner)
        return cls(logits, components.with_natural_params(inner))

    @classmethod
    def from_mean(cls, params: Params, *, components: ExponentialFamily) -> Self:
        """The mixture with mean parameters μ; see `from_natural`."""
        first, weighted = params
        weights = jnp.concatenate([first, 1 - first.sum(-1, keepdims=True)], -1)
        inner = _scale(weighted, 1 / weights)
        return cls(jnp.log(weights), components.with_mean_params(inner))

    @property
    def mean_params(self) -> Params:
        weights = self.weights
        return weights[..., :-1], _scale(self.components.mean_params, weights)

    def log_partition(self, params: Params) -> Float[Array, "*b"]:
        theta, inner = params
        logits = with_last(theta) + self.components.log_partition(inner)
        return jax.nn.logsumexp(logits, -1)

    def _indicators(self, component: Int[Array, "*s"]) -> Float[Array, "*s K"]:
        count = self.logits.shape[-1]
        return jax.nn.one_hot(component.astype(int), count, dtype=self.dtype)

    def sufficient_statistics(self, x: tuple[Array, Any]) -> Params:
        component, value = x
        one_hot = self._indicators(component)
        statistics = self.components.sufficient_statistics(self._repeat(value))
        return one_hot[..., :-1], _scale(statistics, one_hot)

    def _repeat(self, value: Any) -> Any:
        """The same x for each component: an axis of length 1 where those have K."""
        support = self.components.support
        axis = len(support.batch_shape(value))
        return jax.tree.map(lambda v: jnp.expand_dims(v, axis), value)

    def log_base_measure(self, x: tuple[Array, Any]) -> Float[Array, "*b"]:
        return self.components.log_base_measure(self._repeat(x[1]))[..., 0]

    def expected_log_base_measure(self) -> Float[Array, "*b"]:
        return (self.weights * self.components.expected_log_base_measure()).sum(-1)

    def _log_density(self, x: tuple[Array, Any]) -> Float[Array, "*b"]:
        component, value = x
        here = self._indicators(component) > 0
        # Only its own component meets x: to others it may be infinitely unlikely.
        near = self.components.support.replace_outside(self._repeat(value), here)
        within = self.components._log_density(near)
        return jnp.where(here, self.log_weights + within, 0).sum(-1)

    def sample(self, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Any:
        """Draws (k, x) of the joint distribution.

        x moves with its component's parameters, but which component it comes from does
        not move with the weights: derivatives of draws leave that part out.
        """
        first, second = jax.random.split(key)
        component = jax.random.categorical(
            first, self.logits, shape=(*shape, *self.batch_shape)
        )
        draws = self.components.sample(second, shape)
        axis = len(shape) + len(self.batch_shape)

        def choose(leaf: Array) -> Array:
            extra = tuple(range(axis, leaf.ndim))
            index = jnp.expand_dims(component, extra)
            return jnp.take_along_axis(leaf, index, axis).squeeze(axis)

        return component, jax.tree.map(choose, draws)

    def entropy(self) -> Float[Array, "*b"]:
        within = self.components.entropy() - self.log_weights
        return (self.weights * within).sum(-1)

    def kl(self, other: Self) -> Float[Array, "*b"]:
        self.same_family(other)
        within = self.components.kl(other.components)
        between = self.log_weights - other.log_weights
        return (self.weights * (between + within)).sum(-1)

    # The matrices among the components' parameters are stacked: flatten within.

    def flatten(self, params: Params) -> Float[Array, "*b n"]:
        flat = self.components.flatten(params[1])
        return jnp.concatenate([params[0], flat.reshape(*flat.shape[:-2], -1)], -1)

    def unflatten(self, vector: Float[Array, "*b n"]) -> Params:
        count = self.logits.shape[-1]
        theta, flat = vector[..., : count - 1], vector[..., count - 1 :]
        inner = flat.reshape(*flat.shape[:-1], count, -1)
        return theta, self.components.unflatten(inner)

    # -- the marginal of x -------------------------------------------------------------

    def marginal_log_prob(self, x: Any) -> Float[Array, "*b"]:
        """log Σ_k w_k q_k(x)."""
        within = self.components.log_prob(self._repeat(x))
        return jax.nn.logsumexp(self.log_weights + within, -1)

    def responsibilities(self, x: Any) -> Float[Array, "*b K"]:
        """P(k | x), the components' shares in the density at x."""
        within = self.components.log_prob(self._repeat(x))
        return jax.nn.softmax(self.log_weights + within, -1)

    @property
    def mean(self) -> Any:
        """E[x]."""
        return self._average(self.components.mean)

    @property
    def variance(self) -> Any:
        """Var[x] = E[Var[x | k]] + Var[E[x | k]]."""
        means = self.components.mean
        axis = len(self.batch_shape)
        centre = jax.tree.map(lambda m: jnp.expand_dims(m, axis), self.mean)
        spread = jax.tree.map(
            lambda v, m, c: v + (m - c) ** 2, self.components.variance, means, centre
        )
        return self._average(spread)

    def _average(self, values: Any) -> Any:
        """The average over components of arrays (*b, K, *e)."""
        axis = len(self.batch_shape)
        return jax.tree.map(lambda v: v.sum(axis), _scale(values, self.weights))

    def cdf(self, x: Array) -> Float[Array, "*b"]:
        """P(X ≤ x)."""
        return (self.weights * self.components.cdf(self._repeat(x))).sum(-1)

    def to_numpyro(self) -> Any:
        """The marginal of x as `numpyro.distributions.MixtureSameFamily`."""
        import numpyro.distributions as dist

        mixing = dist.Categorical(logits=self.log_weights)
        return dist.MixtureSameFamily(mixing, self.components.to_numpyro())

    @classmethod
    def from_numpyro(cls, distribution: Any) -> Self:
        mixing = distribution.mixing_distribution
        components = from_numpyro(distribution.component_distribution)
        return cls(mixing.logits, components)


def _scale(params: Params, weights: Float[Array, "*s K"]) -> Params:
    """Each component's parameters (*s, K, *e) times its weight."""

    def scaled(leaf: Array) -> Array:
        extra = leaf.ndim - weights.ndim
        return leaf * jnp.expand_dims(weights, tuple(range(-extra, 0)))

    return jax.tree.map(scaled, params)
