"""A NumPyro model of a net, taken apart into outputs, likelihood and prior.

A model whose weights are sites with normal priors, as `random_flax_module` makes them
or written by hand,

    w_k ~ N(m_k, 1/δ_k),   y ~ p(y | f(w, x)),

is what the rows of `ngvi.nets` train. What is read of y's distribution:

| y ~                       | f          | likelihood                  |
|---------------------------|------------|-----------------------------|
| Normal(m, σ), σ a number  | m          | Gaussian(σ)                 |
| Normal(m, γ^−½), γ ~ Gamma| m          | ObservationNoise(γ's prior) |
| Normal(m, σ(w, x))        | (m, log σ) | HeteroscedasticGaussian     |
| Bernoulli, Categorical    | logits     | of the same name            |
| Poisson                   | log rate   | Poisson                     |

For any other model there is `ngvi.fit`, with a diagonal covariance for many weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ngvi.fisher.batches import count
from ngvi.fisher.likelihoods import (
    Bernoulli,
    Categorical,
    Gaussian,
    HeteroscedasticGaussian,
    Likelihood,
    Poisson,
)
from ngvi.nets.algorithm import Algorithm
from ngvi.nets.observation_noise import ObservationNoise

Sites = dict[str, dict[str, Any]]
"""What a run of a model records."""


class Converted(NamedTuple):
    """Of a NumPyro model: what `ngvi.nets` takes. Made by `from_numpyro`."""

    apply: Callable[[dict[str, Array], Any], Any]
    """(weights by site, x) ↦ f."""
    likelihood: Likelihood | ObservationNoise
    params: dict[str, Array]
    """Weights drawn from the prior, by site: a start."""
    prior_precision: dict[str, Any]
    prior_mean: dict[str, Array]

    def algorithm(
        self, row: Callable[..., Algorithm], data_size: int, **settings: Any
    ) -> Algorithm:
        """A row of `ngvi.nets`, such as `noisy_kfac`, for this model and its prior."""
        prior = {"prior_precision": self.prior_precision, "prior_mean": self.prior_mean}
        return row(self.apply, self.likelihood, data_size, **(prior | settings))


@dataclass(frozen=True)
class Outputs:
    """f of a model; hashable, so that `jit` knows it."""

    model: Callable[..., Any]
    observed: str
    noise: str | None
    sd_is_output: bool
    label: jax.ShapeDtypeStruct
    """Of an example: the model is run with zeros, which f does not depend on."""

    def __call__(self, params: dict[str, Array], x: Any) -> Any:
        y = jnp.zeros((count(x), *self.label.shape), self.label.dtype)
        given = params if self.noise is None else params | {self.noise: 1.0}
        return self.of(_recorded(self.model, x, y, given))

    def of(self, run: Sites) -> Any:
        """f in a run of the model."""
        f = _outputs(run[self.observed]["fn"])
        return f if self.sd_is_output or not isinstance(f, tuple) else f[0]


def from_numpyro(model: Callable[..., Any], x: Any, y: Any) -> Converted:
    """The outputs, the likelihood and the prior of a model of a net.

    Args:
        model: (x, y) ↦ None, with one observed site, of y.
        x, y: some examples, whose shapes matter.

    Raises:
        ValueError: weights or noise with other priors, parameters without any, several
            observed sites, subsampling, or labels of another distribution; it says
            which site.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
        >>> from ngvi.nets import full
        >>> def model(x, y=None):
        ...     w = numpyro.sample("w", dist.Normal(0, 2).expand([1, 2]).to_event())
        ...     logits = x @ w
        ...     with numpyro.plate("n", len(x)):
        ...         numpyro.sample("y", dist.Categorical(logits=logits), obs=y)
        >>> x, y = jnp.linspace(-1, 1, 9)[:, None], jnp.arange(9) // 5
        >>> net = from_numpyro(model, x, y)
        >>> net.prior_precision, net.params["w"].shape
        ({'w': 0.25}, (1, 2))
        >>> algorithm = net.algorithm(full, len(x))
        >>> state = algorithm.init(net.params, (x, y))
        >>> algorithm.posterior(state).sample(jax.random.key(0), (3,))["w"].shape
        (3, 1, 2)
    """
    x, y = jax.tree.map(jnp.asarray, (x, y))
    sites, others = (_recorded(model, x, y, {}, seed) for seed in (0, 1))
    _check_parameters(sites)
    observed = _observed_site(sites)
    latent = _samples(sites, observed=False)
    weights = [name for name in latent if _is(sites[name]["fn"], "Normal")]
    noise = _noise_site([name for name in latent if name not in weights], sites)
    precision, mean = {}, {}
    for name in weights:
        precision[name], mean[name] = _prior(name, sites, others)
    params = {name: sites[name]["value"] for name in weights}
    if not params:
        raise ValueError("the model has no site with a normal prior: no weights")
    sd_is_output, likelihood = _likelihood((sites, others), observed, noise)
    label = jax.ShapeDtypeStruct(y.shape[1:], y.dtype)
    apply = Outputs(model, observed, noise, sd_is_output, label)
    _check_reads(apply, {name: others[name]["value"] for name in params}, x, others)
    return Converted(apply, likelihood, params, precision, mean)


def _recorded(
    model: Callable[..., Any], x: Any, y: Any, given: dict[str, Any], seed: int = 0
) -> Sites:
    from numpyro import handlers

    run = handlers.seed(handlers.substitute(model, data=given), seed)
    return handlers.trace(run).get_trace(x, y)


def _samples(sites: Sites, observed: bool) -> list[str]:
    """The names of those that are sampled, observed or not."""
    sampled = [name for name, site in sites.items() if site["type"] == "sample"]
    return [name for name in sampled if sites[name]["is_observed"] == observed]


def _base(fn: Any) -> Any:
    """A distribution without what makes it larger."""
    import numpyro.distributions as dist

    while isinstance(fn, dist.Independent | dist.ExpandedDistribution):
        fn = fn.base_dist
    return fn


def _is(fn: Any, *names: str) -> bool:
    return type(_base(fn)).__name__ in names


# -- the prior -------------------------------------------------------------------------


def _prior(name: str, sites: Sites, others: Sites) -> tuple[Any, Array]:
    """δ, one number where it is one, and m of a site of weights."""
    bases = [_base(run[name]["fn"]) for run in (sites, others)]
    for one, other in zip(*[(base.loc, base.scale) for base in bases], strict=True):
        if not np.array_equal(one, other):
            raise ValueError(
                f"the prior of {name!r} depends on other sites: a net's weights need "
                "priors of their own; take `ngvi.fit`, or a row's hyperprior"
            )
    shape, scale = jnp.shape(sites[name]["value"]), np.asarray(bases[0].scale)
    mean = jnp.broadcast_to(bases[0].loc, shape)
    if (scale == scale.flat[0]).all():
        return float(scale.flat[0]) ** -2, mean
    return jnp.broadcast_to(scale, shape) ** -2, mean


def _noise_site(rest: list[str], sites: Sites) -> str | None:
    """The site of the noise's precision, if there is one.

    Raises:
        ValueError: there are others.
    """
    if not rest:
        return None
    for name in rest:
        site = sites[name]
        if len(rest) > 1 or not _is(site["fn"], "Gamma") or jnp.ndim(site["value"]):
            raise ValueError(
                f"site {name!r} has a prior of class {type(_base(site['fn'])).__name__}"
                ": weights must have normal priors and the precision of the noise, one "
                "number, that of Gamma; for other models take `ngvi.fit`"
            )
    return rest[0]


# -- the labels ------------------------------------------------------------------------


def _observed_site(sites: Sites) -> str:
    """The one that is observed, of a distribution that is known here.

    Raises:
        ValueError: there is none, or more, or another.
    """
    found = _samples(sites, observed=True)
    if len(found) != 1:
        raise ValueError(
            f"the model must have one observed site, got {found or 'none'}: for "
            "several take `ngvi.fit`"
        )
    site = sites[found[0]]
    if site["scale"] is not None:
        raise ValueError(
            f"site {found[0]!r} is scaled, as by subsampling: give the model all of x "
            "and no subsample_size; batches are the training's"
        )
    if not _is(site["fn"], "Normal", *LIKELIHOODS):
        raise ValueError(
            f"site {found[0]!r} is of class {type(_base(site['fn'])).__name__}; known "
            f"are Normal, {', '.join(LIKELIHOODS)}. Take `ngvi.fit`, or give a row the "
            "likelihood and the outputs themselves"
        )
    return found[0]


def _outputs(fn: Any) -> Any:
    """f of a distribution of labels; (m, log σ) of a normal one."""
    base, shape = _base(fn), fn.batch_shape + fn.event_shape
    if _is(base, "Normal"):
        pair = base.loc, jnp.log(base.scale)
        return tuple(jnp.broadcast_to(v, shape) for v in pair)
    _, read = LIKELIHOODS[type(base).__name__]
    f = read(base)
    classes = f.shape[-1:] if "Categorical" in type(base).__name__ else ()
    return jnp.broadcast_to(f, shape + classes)


LIKELIHOODS: dict[str, tuple[type[Likelihood], Callable[[Any], Array]]] = {
    "BernoulliLogits": (Bernoulli, lambda fn: fn.logits),
    "BernoulliProbs": (Bernoulli, lambda fn: jax.scipy.special.logit(fn.probs)),
    "CategoricalLogits": (Categorical, lambda fn: fn.logits),
    "CategoricalProbs": (Categorical, lambda fn: jnp.log(fn.probs)),
    "Poisson": (Poisson, lambda fn: jnp.log(fn.rate)),
}
"""Beside the normal: with what f is read of them."""


def _likelihood(
    runs: tuple[Sites, Sites], observed: str, noise: str | None
) -> tuple[bool, Likelihood | ObservationNoise]:
    """Whether the sd is an output of the net; and the likelihood of the others."""
    fn = runs[0][observed]["fn"]
    if not _is(fn, "Normal"):
        return False, LIKELIHOODS[type(_base(fn)).__name__][0]()
    scales = [np.exp(_outputs(run[observed]["fn"])[1]) for run in runs]
    if noise is not None:
        for run, scale in zip(runs, scales, strict=True):
            if not np.allclose(scale, run[noise]["value"] ** -0.5, rtol=1e-3):
                raise ValueError(
                    f"site {noise!r} must be the precision of {observed!r}, whose "
                    f"scale is {noise}**-0.5; for another noise take `ngvi.fit`"
                )
        prior = _base(runs[0][noise]["fn"])
        return False, ObservationNoise.begin(prior.concentration, prior.rate)
    first = scales[0][0]
    if not all(np.allclose(scale, first, rtol=1e-6) for scale in scales):
        return True, HeteroscedasticGaussian()
    same = np.ptp(first) == 0
    return False, Gaussian(float(first.flat[0]) if same else jnp.asarray(first))


def _check_parameters(sites: Sites) -> None:
    """Refuse parameters without a prior.

    Raises:
        ValueError: with the site and the leaf.
    """
    for name, site in sites.items():
        if site["type"] != "param":
            continue
        # Where a module's parameter has a prior, its shape stands in its place.
        for path, leaf in jax.tree_util.tree_leaves_with_path(site["value"]):
            if isinstance(leaf, jax.Array | np.ndarray):
                raise ValueError(
                    f"{name}{jax.tree_util.keystr(path)} has no prior: give every "
                    "parameter of the module one"
                )


def _check_reads(apply: Outputs, params: dict[str, Array], x: Any, run: Sites) -> None:
    """Refuse outputs that depend on more than weights and x.

    Raises:
        ValueError: they do.
    """
    both = apply(params, x), apply.of(run)
    for one, other in zip(*map(jax.tree.leaves, both), strict=True):
        if not np.allclose(one, other, rtol=1e-4, atol=1e-5, equal_nan=True):
            raise ValueError(
                f"the distribution of {apply.observed!r} depends on more than the "
                "weights and x: on random numbers, such as dropout's, on y, or on the "
                "noise. Take these out of the model, or take `ngvi.fit`"
            )
