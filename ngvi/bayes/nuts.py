"""Exact draws by NUTS, in the coordinates in which a fit is a standard normal.

A fit q = N(m, A Aᵀ) is a change of variables z = m + A ε. NUTS runs on ε, where the
posterior is about N(0, I) however the model is scaled and correlated: the mass matrix
starts right, the step size starts near 1, and the chains start at draws from q, so a
short warm-up is enough.

Source: Hoffman and Gelman (2014), The No-U-Turn Sampler; Hoffman et al. (2019),
NeuTra-lizing bad geometry in Hamiltonian Monte Carlo using neural transport.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from numpyro.diagnostics import split_gelman_rubin
from numpyro.infer import MCMC, NUTS

from ngvi.bayes.weighted_draws import DIVERGING_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from ngvi.bayes.posterior import Posterior

_TRIES = 16
# Above NumPyro's 0.8: a short warm-up leaves some chains with too long a step where the
# posterior narrows, and a third fewer divergences are worth a fifth more gradients.
_TARGET_ACCEPT_PROB = 0.9
_RHAT_LIMIT = 1.05


def _starts(
    potential: Callable[[Array], Array], key: Key[Array, ""], chains: int, like: Array
) -> Float[Array, "c d"]:
    """Draws from N(0, I) at which the potential and its gradient are finite.

    Raises:
        ValueError: there are too few among many.
    """
    shape = (chains * _TRIES, like.size)
    eps = jax.random.normal(key, shape, like.dtype)
    # Tails of q may lie where the model is not defined; nearer its mean they do not.
    shrink = jnp.repeat(0.5 ** jnp.arange(_TRIES // 4), 4 * chains)
    eps = shrink[:, None].astype(like.dtype) * eps

    def usable(eps: Array) -> Array:
        value, gradient = jax.value_and_grad(potential)(eps)
        return jnp.isfinite(value) & jnp.isfinite(gradient).all()

    finite = jnp.flatnonzero(jax.jit(jax.vmap(usable))(eps))
    if finite.size < chains:
        raise ValueError(
            "The log density is not finite at draws from the fit, so NUTS has nowhere "
            "to start. Check posterior.verdict and the model."
        )
    return eps[finite[:chains]]


def nuts(
    posterior: Posterior,
    num_samples: int = 1000,
    num_warmup: int = 200,
    num_chains: int = 4,
    seed: int = 0,
    progress_bar: bool = False,
    **nuts_options: Any,
) -> MCMC:
    """Run NumPyro's NUTS from a fit.

    Args:
        posterior: of a NumPyro model or of a plain log density.
        num_samples: draws a chain.
        num_warmup: steps of adaptation a chain.
        num_chains: chains, run side by side in one program.
        seed: the same seed gives the same draws.
        progress_bar: show one.
        **nuts_options: of `numpyro.infer.NUTS`, such as target_accept_prob (by default
            0.9 here).

    Returns:
        The sampler after its run. `get_samples()` gives latent and deterministic sites
        on their own supports; `print_summary()` shows r-hat and effective sizes;
        `get_extra_fields()` has potential_energy, num_steps, accept_prob and diverging.

    Raises:
        ValueError: the log density is not finite at draws of the fit.

    Warns:
        UserWarning: the chains disagree, or many steps diverged: the draws are not to
            be trusted yet.

    Example:
        >>> mcmc = posterior.nuts(num_samples=500)               # doctest: +SKIP
        >>> mcmc.get_samples()["tau"].shape                      # doctest: +SKIP
        (2000,)
    """
    target, data, q = posterior.target, posterior.data, posterior.gaussian

    def sites(eps: Float[Array, "d"]) -> dict[str, Array]:
        return target.constrain(data, q.place(eps))

    mcmc = _run(
        posterior,
        sites,
        num_samples,
        num_warmup,
        num_chains,
        seed,
        progress_bar,
        **nuts_options,
    )
    _warn(mcmc)
    return mcmc


def nuts_points(
    posterior: Posterior,
    num_samples: int,
    num_warmup: int,
    num_chains: int,
    seed: int,
    **nuts_options: Any,
) -> tuple[Float[np.ndarray, "c n d"], float, int]:
    """Unconstrained draws, the part of the steps that diverged, and gradients."""
    q = posterior.gaussian

    def place(eps: Float[Array, "d"]) -> dict[str, Array]:
        return {"z": q.place(eps)}

    run = num_samples, num_warmup, num_chains, seed, False
    mcmc = _run(posterior, place, *run, **nuts_options)
    fields = mcmc.get_extra_fields()
    steps = int(np.asarray(fields["num_steps"]).sum())
    # The warm-up's are not told: as many a draw as later.
    gradients = steps * (num_samples + num_warmup) // num_samples
    points = np.asarray(mcmc.get_samples(group_by_chain=True)["z"])
    return points, float(np.asarray(fields["diverging"]).mean()), gradients


def _run(
    posterior: Posterior,
    postprocess: Callable[[Array], dict[str, Array]],
    num_samples: int,
    num_warmup: int,
    num_chains: int,
    seed: int,
    progress_bar: bool,
    **nuts_options: Any,
) -> MCMC:
    """The sampler after its run in the coordinates in which q is standard normal."""
    target, data, q = posterior.target, posterior.data, posterior.gaussian

    def potential(eps: Float[Array, "d"]) -> Float[Array, ""]:
        return target.potential(data, q.place(eps))

    start_key, run_key = jax.random.split(jax.random.key(seed))
    starts = _starts(potential, start_key, num_chains, q.mean)
    mcmc = MCMC(
        NUTS(
            potential_fn=potential,
            **{"target_accept_prob": _TARGET_ACCEPT_PROB} | nuts_options,
        ),
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        postprocess_fn=postprocess,
        chain_method="vectorized",
        progress_bar=progress_bar,
    )
    fields = ("potential_energy", "num_steps", "accept_prob")
    init_params = starts if num_chains > 1 else starts[0]
    mcmc.run(run_key, init_params=init_params, extra_fields=fields)
    return mcmc


def _warn(mcmc: MCMC) -> None:
    """Say so where a run is not to be trusted."""
    sites = mcmc.get_samples(group_by_chain=True)
    rhats = {}
    for name, draws in sites.items():
        draws = np.asarray(draws)
        if draws.shape[1] >= 4 and (draws != draws[:1, :1]).any():
            with np.errstate(divide="ignore", invalid="ignore"):
                rhat = np.asarray(split_gelman_rubin(draws))
            # That of an entry which does not vary is NaN.
            rhats[name] = float(np.nan_to_num(rhat, nan=1.0).max(initial=1.0))
    diverging = np.asarray(mcmc.get_extra_fields()["diverging"])
    problems = []
    if rhats and max(rhats.values()) > _RHAT_LIMIT:
        name = max(rhats, key=lambda n: rhats[n])
        problems.append(f"r-hat of '{name}' is {rhats[name]:.2f}: the chains disagree")
    if diverging.mean() > DIVERGING_LIMIT:
        count = f"{int(diverging.sum())} of {diverging.size}"
        problems.append(f"{count} steps diverged: part of the posterior is not reached")
    if problems:
        warnings.warn(
            f"NUTS: {'; '.join(problems)}. Try target_accept_prob=0.99 and a larger "
            "num_warmup, or reparameterise the model.",
            stacklevel=4,
        )
