"""What a net knows where there are no data: error bars in a gap and beyond the ends.

A curve is seen in two pieces. Between them a posterior over the weights of a net should
know less than on them; whether it does depends on which weights it lets vary together.

    mean field            independent weights, by Adam on the ELBO (Bayes by backprop)
    noisy K-FAC           a matrix normal for each layer, by natural gradients
    full                  all covariances, likewise
    deep ensemble         ten nets, each at a mode
    ensemble of K-FAC     ten nets, each with the width of its mode: a mixture

All have the same prior and the same noise, which is known. The net is smooth, so that
outside the data the exact posterior grows only as fast as the prior lets it.

Source: Foong, Li, Hernández-Lobato and Turner (2019), 'In-between' uncertainty in
Bayesian neural networks.

    python examples/bayesian_net_gaps.py
"""

from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np

from ngvi.fisher import MLP
from ngvi.fisher.likelihoods import Gaussian
from ngvi.nets import full, noisy_kfac
from ngvi.nets.baselines import (
    bayes_by_backprop,
    deep_ensemble,
    ensemble,
)

NOISE, MEMBERS, DRAWS = 0.1, 10, 300
NET = MLP((1, 30, 1))
GRID = np.linspace(-3, 2.6, 141, dtype=np.float32)[:, None]
SEEN = [(-2.0, -0.8), (0.6, 1.6)]
REGIONS = {
    "on the data": (GRID > -1.9) & (GRID < -0.9) | (GRID > 0.7) & (GRID < 1.5),
    "in the gap": (GRID > -0.4) & (GRID < 0.2),
    "beyond": (GRID < -2.5) | (GRID > 2.1),
}
# Opposite pairs of draws, and a start narrower than the data warrant: the first steps
# of a wide posterior would leave the mode.
NATURAL = {
    "learning_rate": 0.03,
    "samples": 4,
    "antithetic": True,
    "initial_curvature": 10.0,
}
KFAC = {**NATURAL, "kind": "true", "refresh": 1, "corrected": False}


def truth(x: np.ndarray) -> np.ndarray:
    return np.sin(2.5 * x) + 0.3 * x


def curve(rng: np.random.Generator, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    x = np.concatenate([rng.uniform(*ends, n) for ends in SEEN])[:, None]
    y = truth(x) + NOISE * rng.normal(size=x.shape)
    return x.astype(np.float32), y.astype(np.float32)


def posteriors(data: tuple[np.ndarray, np.ndarray], epochs: int) -> dict[str, Any]:
    """By name; the natural gradients and the mean field start at a mode."""
    likelihood, size = Gaussian(NOISE), len(data[0])
    whole: dict[str, Any] = {"batch_size": size}
    key, of_members = jax.random.split(jax.random.key(1))
    modes = deep_ensemble(
        NET,
        likelihood,
        NET.init,
        data,
        of_members,
        members=MEMBERS,
        epochs=2 * epochs,
        learning_rate=0.01,
        **whole,
    )
    starts = modes.components.params
    mode = modes[0].params

    backprop = bayes_by_backprop(
        NET, likelihood, size, learning_rate=0.01, samples=4, initial_curvature=10.0
    )
    state = backprop.init(mode, data)
    state, _ = backprop.run(state, data, key, epochs=3 * epochs, **whole)
    found = {"mean field": backprop.posterior(state)}
    rows = {
        "noisy K-FAC": noisy_kfac(NET, likelihood, size, **KFAC),
        "full": full(NET, likelihood, size, **NATURAL),
    }
    for name, row in rows.items():
        state = row.init(mode, data)
        state, _ = row.run(state, data, key, epochs=epochs, **whole)
        found[name] = row.posterior(state)
    found["deep ensemble"] = modes
    found["ensemble of K-FAC"] = ensemble(
        rows["noisy K-FAC"], starts, data, key, epochs=epochs, **whole
    )
    return found


def outputs(posterior: Any) -> np.ndarray:
    """Curves drawn from a posterior, on the grid."""
    params = posterior.sample(jax.random.key(2), (DRAWS,))
    return np.asarray(jax.jit(jax.vmap(NET, (0, None)))(params, GRID))[..., 0]


def main() -> None:
    data = curve(np.random.default_rng(0))
    curves = {
        name: outputs(posterior) for name, posterior in posteriors(data, 1000).items()
    }
    print(f"{'standard deviation of the curve':32s}", end="")
    print("".join(f"{region:>14s}" for region in REGIONS) + f"{'gap / data':>14s}")
    for name, drawn in curves.items():
        sd = drawn.std(0)
        cells = [sd[mask[:, 0]].mean() for mask in REGIONS.values()]
        print(f"{name:32s}" + "".join(f"{cell:14.3f}" for cell in cells), end="")
        print(f"{cells[1] / cells[0]:14.1f}")
    draw(data, curves)


def draw(data: tuple[np.ndarray, np.ndarray], curves: dict[str, np.ndarray]) -> None:
    figure, axes = plt.subplots(
        2, 3, figsize=(11, 5.6), sharex=True, layout="constrained"
    )
    x = GRID[:, 0]
    *panels, last = axes.flat
    colours = ["C1", "C0", "C2", "C3", "C4"]
    for axis, (name, drawn), colour in zip(
        panels, curves.items(), colours, strict=True
    ):
        mean, sd = drawn.mean(0), drawn.std(0)
        for width, alpha in ((2, 0.2), (1, 0.3)):
            band = mean - width * sd, mean + width * sd
            axis.fill_between(x, *band, color=colour, alpha=alpha, linewidth=0)
        axis.plot(x, mean, color=colour)
        axis.plot(x, truth(x), "k:", linewidth=1)
        axis.plot(*data, "k.", markersize=3)
        axis.set(title=name, ylim=(-3, 3))
    for (name, drawn), colour in zip(curves.items(), colours, strict=True):
        last.plot(x, drawn.std(0), color=colour, label=name)
    for ends in SEEN:
        last.axvspan(*ends, color="0.9", linewidth=0)
    last.set(title="standard deviation", ylim=(0, None))
    last.legend(frameon=False, fontsize="x-small", handlelength=1, loc="upper right")
    for axis in axes[1]:
        axis.set_xlabel("x")
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/bayesian_net_gaps.png", dpi=150)
    print("\nout/bayesian_net_gaps.png: curves, one and two standard deviations")


if __name__ == "__main__":
    main()
