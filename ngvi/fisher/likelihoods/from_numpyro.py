"""A function from outputs to a distribution of NumPyro as a likelihood.

Where the distribution is a member of a family of `ngvi.families` with natural
parameters λ(f), Λ = (∂λ/∂f)ᵀ F(λ) (∂λ/∂f), in closed form. Elsewhere

    Λ = Σ_k w_k s(y_k) s(y_k)ᵀ,  s(y) = ∂ log p(y | f)/∂f,

over all values of a finite support with their probabilities w_k, which is exact, or
over a given number of draws with equal weights: unbiased, with a relative error of
about the inverse square root of their number. Draws are the same at every call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.families import ExponentialFamily
from ngvi.families.numpyro_bridge import from_numpyro
from ngvi.families.parameters import family as record
from ngvi.families.parameters import fixed
from ngvi.fisher.likelihoods.base import (
    Labels,
    Likelihood,
    Outputs,
    check_each,
    check_floating,
    one_example,
)
from ngvi.fisher.likelihoods.exponential_family import NaturalParameters


class _Nodes(NamedTuple):
    """Labels and weights that an expectation is a sum over."""

    labels: Labels  # (k, *batch, *event)
    weights: Float[Array, "k *batch"]


@record
class FromNumPyro(Likelihood):
    """Labels of the distribution that a function makes of the outputs.

    Args:
        function: from the outputs of one example to a distribution of
            `numpyro.distributions`; entries of its batch are independent labels.
        draws: how many draws stand for the distribution where Λ or a divergence has no
            closed form and the support is not finite; 0 raises an error there.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpyro.distributions as dist
        >>> likelihood = FromNumPyro(lambda f: dist.Poisson(jnp.exp(f)))
        >>> round(float(likelihood.fisher_mv(jnp.array(0.0), jnp.array(1.0))), 6)
        1.0
    """

    function: Callable[[Outputs], Any] = fixed("a function", callable)
    draws: int = fixed(
        "a whole number, 0 or more",
        lambda n: isinstance(n, int) and not isinstance(n, bool) and n >= 0,
        default=0,
    )

    def log_prob(self, f: Outputs, y: Labels) -> Float[Array, ""]:
        return self.function(f).log_prob(y).sum()

    def sample(self, key: Key[Array, ""], f: Outputs) -> Labels:
        return self.function(f).sample(key)

    def mean(self, f: Outputs) -> Any:
        return self.function(f).mean

    def fisher_mv(self, f: Outputs, v: Outputs) -> Outputs:
        member = self._member(f)
        if member is not None:
            _, change, transpose = self._natural(f, v)
            return transpose(member.fisher_product(change))
        nodes = self._nodes(f)

        def log_probs(g: Outputs) -> Float[Array, "k *b"]:
            return self.function(g).log_prob(nodes.labels)

        _, change = jax.jvp(log_probs, (f,), (v,))
        _, transpose = jax.vjp(log_probs, f)
        return transpose(nodes.weights * change)[0]

    def root_columns(self, f: Outputs) -> Outputs:
        member = self._member(f)
        if member is not None:
            params, _, transpose = self._natural(f, jax.tree.map(jnp.zeros_like, f))
            root = NaturalParameters.of(member).root_columns(params)
            return jax.vmap(transpose)(root)
        nodes = self._nodes(f)
        _, transpose = jax.vjp(lambda g: self.function(g).log_prob(nodes.labels), f)
        # One column for every node of every entry.
        basis = jnp.diag(jnp.sqrt(nodes.weights).ravel())
        basis = basis.reshape(-1, *nodes.weights.shape)
        return jax.vmap(lambda column: transpose(column)[0])(basis)

    def kl(self, f: Outputs, g: Outputs) -> Float[Array, ""]:
        member, other = self._member(f), self._member(g)
        if member is not None and other is not None:
            return member.kl(other).sum()
        nodes = self._nodes(f)
        ratio = self.function(f).log_prob(nodes.labels) - self.function(g).log_prob(
            nodes.labels
        )
        # Σ w (q/p − 1 − log q/p): no term is negative, and less varies.
        return (nodes.weights * (jnp.expm1(-ratio) + ratio)).sum()

    # -- how expectations are had --------------------------------------------------

    def _member(self, f: Outputs) -> ExponentialFamily | None:
        """The distribution as a member of a family, None where it is of none."""
        try:
            return from_numpyro(self.function(f))
        except (TypeError, ValueError, NotImplementedError, jax.errors.JAXTypeError):
            # A constant of the family that depends on f cannot be read while tracing.
            return None

    def _natural(self, f: Outputs, v: Outputs) -> tuple[Any, Any, Callable]:
        """λ(f), its change along v, and the transpose of that map."""

        def natural(g: Outputs) -> Any:
            return from_numpyro(self.function(g)).natural_params

        params, change = jax.jvp(natural, (f,), (v,))
        _, transpose = jax.vjp(natural, f)
        return params, change, lambda x: transpose(x)[0]

    def _nodes(self, f: Outputs) -> _Nodes:
        distribution = self.function(f)
        if distribution.has_enumerate_support:
            labels = distribution.enumerate_support(expand=True)
            return _Nodes(labels, jnp.exp(distribution.log_prob(labels)))
        if self.draws == 0:
            name = type(distribution).__name__
            raise NotImplementedError(
                f"{self._name}: the Fisher matrix of numpyro's {name} has no closed "
                "form here; FromNumPyro(function, draws=1000) takes a mean over draws"
            )
        labels = distribution.sample(jax.random.key(0), (self.draws,))
        labels = jax.lax.stop_gradient(labels)
        shape = (self.draws, *distribution.batch_shape)
        return _Nodes(labels, jnp.full(shape, 1 / self.draws))

    # -- checks --------------------------------------------------------------------

    def check_outputs(self, outputs: Outputs) -> None:
        for leaf in jax.tree.leaves(outputs):
            check_floating(self._name, "each output", leaf)
        one = one_example(outputs)
        try:
            jax.eval_shape(lambda f: self.function(f).sample(jax.random.key(0)), one)
        except Exception as error:
            shapes = jax.tree.map(lambda a: tuple(a.shape), one)
            raise ValueError(
                f"{self._name}: the function makes no distribution of outputs of "
                f"shapes {shapes}: {error}"
            ) from error

    def check_labels(self, outputs: Outputs, y: Labels) -> None:
        def inside(f: Outputs, label: Labels) -> Array:
            distribution = self.function(f)
            shape = distribution.shape()
            if jnp.shape(label) != shape:
                raise ValueError(
                    f"{self._name}: the label of an example has shape "
                    f"{jnp.shape(label)}, the distribution's draws {shape}"
                )
            return jnp.all(distribution.support(label))

        def support(f: Outputs) -> str:
            return f"in {self.function(f).support}"

        check_each(self._name, inside, support, outputs, y)
