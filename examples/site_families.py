"""Pump failures: families on the sites' own supports, beside the truth.

Pumps of a power plant: each fails at a rate of its own, the rates share a gamma
distribution (Gaver and O'Muircheartaigh, 1987). Given the others every rate is a gamma
and so is the inverse scale; only the shape of the gamma is not conjugate. A mean field
of gammas is compared with the diagonal Gaussian of the logarithms, and with NUTS.

    python examples/site_families.py
"""

from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import numpyro  # noqa: E402
import numpyro.distributions as dist  # noqa: E402

import ngvi  # noqa: E402

HOURS = np.array([94.5, 15.7, 62.9, 126, 5.24, 31.4, 1.05, 1.05, 2.1, 10.5])
FAILURES = np.array([5, 1, 5, 14, 3, 19, 1, 1, 4, 22])


def pumps(hours: np.ndarray, failures: np.ndarray) -> None:
    """Failures of ten pumps in so many thousand hours."""
    shape = numpyro.sample("shape", dist.Exponential(1.0))
    inverse_scale = numpyro.sample("inverse_scale", dist.Gamma(0.1, 1.0))
    with numpyro.plate("pump", len(hours)):
        rate = numpyro.sample("rate", dist.Gamma(shape, inverse_scale))
        numpyro.sample("failures", dist.Poisson(rate * hours), obs=failures)


def main() -> None:
    posterior = ngvi.fit(pumps, HOURS, FAILURES, family="mean-field")
    print(posterior)
    print("\n".join(posterior.approximation.lines()))
    gaussian = ngvi.fit(pumps, HOURS, FAILURES, covariance="diagonal")
    bounds = posterior.diagnostics.elbo, gaussian.diagnostics.elbo
    print(f"ELBO: mean field {bounds[0]:.3f}, diagonal Gaussian {bounds[1]:.3f}")
    exact = ngvi.fit(pumps, HOURS, FAILURES).nuts(num_samples=1000).get_samples()

    figure, axes = plt.subplots(1, 4, figsize=(13, 3.2))
    quantities = [("rate", 0), ("rate", 6), ("shape", None), ("inverse_scale", None)]
    for ax, (name, index) in zip(axes, quantities, strict=True):
        for label, draws in (
            ("NUTS", exact),
            ("mean field", posterior.sample(20_000)),
            ("diagonal Gaussian", gaussian.sample(20_000)),
        ):
            values = np.asarray(draws[name])
            values = values if index is None else values[:, index]
            top = np.quantile(np.asarray(exact[name]), 0.999, axis=0)
            bins = np.linspace(0, top if index is None else top[index], 60)
            filled = label == "NUTS"
            ax.hist(
                values,
                bins,
                density=True,
                histtype="stepfilled" if filled else "step",
                color="0.8" if filled else None,
                label=label,
            )
        ax.set_title(name if index is None else f"{name}[{index}]")
        ax.set_yticks([])
    axes[0].legend()
    figure.tight_layout()
    path = Path("out/site_families.png")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)
    print(path)


if __name__ == "__main__":
    main()
