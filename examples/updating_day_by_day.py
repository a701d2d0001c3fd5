"""A click rate that drifts: yesterday's posterior is today's prior, a little forgotten.

Sixty days of two hundred visits each. Without forgetting the posterior grows ever surer
of an average over all days; with some of it, it follows. The picture shows both.

    python examples/updating_day_by_day.py
"""

from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import numpyro  # noqa: E402
import numpyro.distributions as dist  # noqa: E402

import ngvi  # noqa: E402

DAYS, VISITS = 60, 200


def model(shown, clicked=None):
    """The logit of a click, and what showing an advertisement adds to it."""
    base = numpyro.sample("base", dist.Normal(0, 2))
    effect = numpyro.sample("effect", dist.Normal(0, 2))
    with numpyro.plate("visit", shown.shape[0]):
        logits = base + effect * shown
        numpyro.sample("clicked", dist.Bernoulli(logits=logits), obs=clicked)


def drift(day):
    """The true effect: it wears off, and a new advertisement brings it back."""
    return 1.5 - 2.0 * (day % 30) / 30


def data(seed=0):
    rng = np.random.default_rng(seed)
    for day in range(DAYS):
        shown = rng.integers(0, 2, VISITS).astype(float)
        chance = 1 / (1 + np.exp(1.0 - drift(day) * shown))
        yield shown, (rng.uniform(size=VISITS) < chance).astype(float)


def follow(forgetting):
    """Mean and sd of the effect after each day, (days, 2)."""
    posterior, path = None, []
    for shown, clicked in data():
        options = {} if posterior is None else {"forgetting": forgetting}
        posterior = ngvi.fit(model, shown, clicked, prior=posterior, **options)
        coordinate = posterior.coordinate_names.index("effect")
        q = posterior.gaussian
        path.append((q.mean[coordinate], np.sqrt(q.variance[coordinate])))
    return np.array(path)


def main() -> None:
    days = np.arange(DAYS)
    _, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True, layout="constrained")
    for ax, forgetting in zip(axes, (0.0, 0.2), strict=True):
        mean, sd = follow(forgetting).T
        miss = np.sqrt(np.mean((mean - drift(days)) ** 2))
        print(f"forgetting {forgetting}: off by {miss:.2f}, sd at the end {sd[-1]:.2f}")
        ax.fill_between(days, mean - 2 * sd, mean + 2 * sd, alpha=0.3, label="± 2 sd")
        ax.plot(days, mean, label="posterior mean")
        ax.plot(days, drift(days), "k:", label="truth")
        ax.set(title=f"forgetting = {forgetting}", xlabel="day")
    axes[0].set_ylabel("effect on the logit")
    axes[0].legend()
    Path("out").mkdir(exist_ok=True)
    plt.savefig("out/updating_day_by_day.png", dpi=120)
    print("out/updating_day_by_day.png")


if __name__ == "__main__":
    main()
