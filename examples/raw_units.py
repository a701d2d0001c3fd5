"""A regression in raw units: where gradient descent crawls, natural gradients arrive.

Diabetes progression on predictors measured in years, mg/dl and mmHg, not standardised.
The table shows the coefficients as ngvi finds them, beside NumPyro's full-rank guide
after 5,000 steps of Adam.

    python examples/raw_units.py
"""

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpyro  # noqa: E402
import numpyro.distributions as dist  # noqa: E402
from numpyro.distributions import constraints  # noqa: E402
from numpyro.infer import SVI, Trace_ELBO, autoguide  # noqa: E402
from sklearn.datasets import load_diabetes  # noqa: E402

import ngvi  # noqa: E402


def model(x, y=None):
    columns = x.shape[1]
    beta = numpyro.sample(
        "beta", dist.ImproperUniform(constraints.real, (), (columns,))
    )
    sigma = numpyro.sample("sigma", dist.HalfNormal(100.0))
    with numpyro.plate("patient", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ beta, sigma), obs=y)


def main() -> None:
    x, y = load_diabetes(return_X_y=True, scaled=False)
    x = jnp.column_stack([jnp.ones(len(x)), x])
    posterior = ngvi.fit(model, x, y)
    print(posterior)

    guide = autoguide.AutoMultivariateNormal(model)
    svi = SVI(model, guide, numpyro.optim.Adam(0.01), Trace_ELBO())
    run = svi.run(jax.random.key(0), 5_000, x, y, progress_bar=False)
    adam = guide.sample_posterior(jax.random.key(1), run.params, sample_shape=(2000,))
    error = (adam["beta"].mean(0) - posterior.mean["beta"]) / posterior.sd["beta"]
    print("\nAdam's means, off by so many posterior sds:", jnp.round(error, 1))


if __name__ == "__main__":
    main()
