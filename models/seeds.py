"""Seeds: logistic regression with a random effect per dish.

How many of the seeds on 21 dishes germinated, for two types of seed and two root
extracts. Dishes differ by more than the binomial allows, so each has its own effect on
the logit, non-centred. The spread of the effects may be close to zero.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike

SOURCE = (
    "Crowder, M. J. (1978), Beta-binomial Anova for proportions, Applied Statistics "
    "27, 34-37, table 3; random effects: Breslow, N. E. and Clayton, D. G. (1993), "
    "Journal of the American Statistical Association 88, 9-25."
)
LICENSE = "A published table of counts: facts, free of copyright."


def model(
    aegyptiaca_73: ArrayLike,
    cucumber: ArrayLike,
    seeds: ArrayLike,
    germinated: ArrayLike | None = None,
) -> None:
    """Binomial counts ``germinated`` out of ``seeds``, with 0/1 factors, all (n,)."""
    seed_type, extract = jnp.asarray(aegyptiaca_73), jnp.asarray(cucumber)
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 2.5))
    beta_type = numpyro.sample("beta_type", dist.Normal(0.0, 2.5))
    beta_extract = numpyro.sample("beta_extract", dist.Normal(0.0, 2.5))
    beta_both = numpyro.sample("beta_both", dist.Normal(0.0, 2.5))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    with numpyro.plate("dish", seed_type.shape[0]):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        effect = numpyro.deterministic("effect", sigma * z)
        logits = alpha + beta_type * seed_type + beta_extract * extract
        logits = logits + beta_both * seed_type * extract + effect
        numpyro.sample(
            "germinated", dist.Binomial(seeds, logits=logits), obs=germinated
        )


def data() -> dict[str, np.ndarray]:
    """Germinated and all seeds on 21 dishes."""
    germinated = "10 23 23 26 17 5 53 55 32 46 10 8 10 8 23 0 3 22 15 32 3"
    seeds = "39 62 81 51 39 6 74 72 51 79 13 16 30 28 45 4 12 41 30 51 7"
    return {
        "aegyptiaca_73": np.repeat([0, 1], [11, 10]),
        "cucumber": np.repeat([0, 1, 0, 1], [5, 6, 5, 5]),
        "seeds": np.array(seeds.split(), dtype=int),
        "germinated": np.array(germinated.split(), dtype=int),
    }
