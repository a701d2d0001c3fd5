"""A small net's exact posterior by NUTS, to hold an approximation to.

NumPyro's NUTS runs on

    U(w, log γ) = −Σ log p(y | f_w(x), γ) − log p(w) − log p(γ) − log γ

(without γ, where the noise is known), in the coordinates ε in which the approximation
is a standard normal, w = m + A ε, and its chains start at draws from it. The weights of
a net are not identified, their signs and order least of all, and chains that disagree
about them may agree about every output: what is compared are functions.

Source: Hoffman and Gelman (2014), The No-U-Turn Sampler; Izmailov, Vikram, Hoffman and
Wilson (2021), What are Bayesian neural network posteriors really like?
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ngvi.fisher.likelihoods.normal import Gaussian
from ngvi.fisher.problem import Apply
from ngvi.nets.posterior import WeightPosterior


def nuts(
    apply: Apply,
    posterior: WeightPosterior,
    data: tuple[Any, Any],
    key: Key[Array, ""],
    *,
    samples: int = 500,
    warmup: int = 300,
    chains: int = 2,
    **options: Any,
) -> tuple[Any, Float[Array, "chains samples"] | None]:
    """Draws from the exact posterior of the model that an approximation is of.

    Args:
        apply: the model.
        posterior: whose prior and likelihood are taken, and where the chains start. The
            KL divergence has weight 1, whatever it was in the training.
        data: (x, y), all N examples.
        key: of the starts and the chains.
        samples: of each chain.
        warmup: steps of adaptation of each chain.
        chains: run side by side in one program.
        **options: of `numpyro.infer.NUTS`.

    Returns:
        Weights, pytrees like the parameters with leading axes (chains, samples); and
        the noise's precision γ, if it is learned.
    """
    from numpyro.infer import MCMC, NUTS

    x, y = jax.tree.map(jnp.asarray, data)
    prior, noise = posterior.prior, posterior.noise

    def weights(z: dict[str, Array]) -> Float[Array, "p"]:
        return posterior.mean + posterior.precision.unwhiten(z["eps"])

    def potential(z: dict[str, Array]) -> Float[Array, ""]:
        w = weights(z)
        likelihood, of_noise = posterior.likelihood, jnp.zeros(())
        if noise is not None:
            precision = jnp.exp(z["log_precision"])
            likelihood = Gaussian(jax.lax.rsqrt(precision))
            of_noise = -noise.prior.log_prob(precision) - z["log_precision"]
        f = apply(prior.layout.tree(w), x)
        of_data = -jax.vmap(likelihood.log_prob)(f, y).sum()
        return of_data + prior.departure(w) @ prior.gradient(w) / 2 + of_noise

    of_starts, of_chains = jax.random.split(key)
    shape = (chains, len(posterior.mean))
    start = {"eps": jax.random.normal(of_starts, shape, posterior.mean.dtype)}
    if noise is not None:
        start["log_precision"] = jnp.log(noise.q.mean) * jnp.ones(chains)
    sampler = MCMC(
        NUTS(potential_fn=potential, **options),
        num_warmup=warmup,
        num_samples=samples,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    if chains == 1:
        start = jax.tree.map(lambda leaf: leaf[0], start)
    sampler.run(of_chains, init_params=start)
    drawn = sampler.get_samples(group_by_chain=True)
    params = prior.layout.tree(jax.vmap(jax.vmap(weights))(drawn))
    return params, None if noise is None else jnp.exp(drawn["log_precision"])


@dataclass(frozen=True)
class Comparison:
    """Means and standard deviations of the outputs at given x, of both posteriors.

    Printing it shows how far they are apart.
    """

    mean: np.ndarray
    """Of the approximation, shaped like the outputs."""
    sd: np.ndarray
    exact_mean: np.ndarray
    """Of NUTS."""
    exact_sd: np.ndarray
    rhat: float
    """The largest of the outputs: near 1 if the chains of NUTS agree."""

    @property
    def shift(self) -> float:
        """The difference of the means in exact standard deviations, its root mean
        square."""
        far = (self.mean - self.exact_mean) / self.exact_sd
        return float(np.sqrt(np.mean(far**2)))

    @property
    def spread(self) -> float:
        """The geometric mean of sd / exact sd: below 1 is over-confident."""
        return float(np.exp(np.mean(np.log(self.sd / self.exact_sd))))

    def __str__(self) -> str:
        return (
            f"outputs at {len(self.mean)} examples, against NUTS "
            f"(r-hat up to {self.rhat:.2f}):\n"
            f"  means apart by {self.shift:.2f} exact standard deviations\n"
            f"  standard deviations {self.spread:.2f} times the exact ones"
        )


def compare_with_nuts(
    apply: Apply,
    posterior: WeightPosterior,
    data: tuple[Any, Any],
    x: Any,
    key: Key[Array, ""],
    *,
    draws: int = 1000,
    **settings: Any,
) -> Comparison:
    """Outputs of a small net under an approximate posterior and under the exact one.

    Args:
        apply, posterior, data: as in `nuts`.
        x: where.
        key: of all draws.
        draws: from the approximation.
        **settings: of `nuts`.
    """
    from numpyro.diagnostics import split_gelman_rubin

    of_nuts, of_draws = jax.random.split(key)
    params, _ = nuts(apply, posterior, data, of_nuts, **settings)
    outputs = jax.jit(jax.vmap(apply, (0, None)))
    exact = np.asarray(jax.vmap(outputs, (0, None))(params, x))
    found = np.asarray(outputs(posterior.sample(of_draws, (draws,)), x))
    return Comparison(
        mean=found.mean(0),
        sd=found.std(0),
        exact_mean=exact.mean((0, 1)),
        exact_sd=exact.std((0, 1)),
        rhat=float(np.max(split_gelman_rubin(exact))),
    )
