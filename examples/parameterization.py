"""Natural gradients do not depend on how a model is written down; plain ones do.

1. The normals N(0, 1) → N(1, 1) and N(0, 100²) → N(1, 100²) are both one apart in the
   mean. In nats the first pair is 10,000 times as far apart, and ½ Δᵀ F Δ, with F the
   Fisher matrix, says so.
2. A normal is fitted to the body mass of 442 patients, as (mean, variance), as
   (mean, log sd) and as (mean, log precision). The flow along natural gradients is one
   path through the normals whatever the numbers that it is followed in, here
   E[x], E[x²] = optimum + (start − optimum) e⁻ᵗ; steps of length h stay within O(h) of
   it. Plain gradients have a path for each choice of numbers.
3. A logistic regression of tumours, its inputs in raw and in standardised units: an
   affine change of inputs is a linear one of weights, and natural steps of any length
   are the same step.

Source: Amari (1998), Natural gradient works efficiently in learning.

    python examples/parameterization.py
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from scipy.stats import norm  # noqa: E402
from sklearn.datasets import load_breast_cancer, load_diabetes  # noqa: E402

from ngvi.fisher import fisher  # noqa: E402
from ngvi.fisher.likelihoods import as_likelihood  # noqa: E402

NORMAL = "heteroscedastic_gaussian"
"""Outputs: the mean and the log sd."""
START = 34.0, 12.0
"""Mean and sd."""
TIME, LENGTHS = 6.0, (0.1, 0.01, 0.001)


def _model(log_sd: Callable) -> Callable:
    """The same normal for all x."""

    def apply(params: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.full_like(x, params[0]), jnp.full_like(x, log_sd(params[1]))

    return apply


class Way(NamedTuple):
    """To write a normal down: the model, what its second number is for an sd, and steps
    of plain gradients: their length and number."""

    apply: Callable
    of_sd: Callable
    length: float
    steps: int
    style: str


WAYS = {
    "(mean, variance)": Way(
        _model(lambda v: jnp.log(v) / 2), np.square, 20, 4000, "C1--"
    ),
    "(mean, log sd)": Way(_model(lambda s: s), np.log, 0.1, 3000, "C2-."),
    "(mean, log precision)": Way(
        _model(lambda p: -p / 2), lambda sd: -2 * np.log(sd), 0.1, 3000, "C3:"
    ),
}


def regression(params: dict, x: jax.Array) -> jax.Array:
    return x @ params["w"] + params["b"]


@partial(jax.jit, static_argnums=(0, 1, 5, 6))
def descend(
    apply: Callable,
    likelihood: str,
    params: Any,
    data: tuple,
    length: float,
    steps: int,
    natural: bool = True,
) -> Any:
    """The parameters after 0, 1, … steps."""

    def step(params: Any, _: None) -> tuple[Any, Any]:
        d = jax.grad(loss, argnums=2)(apply, likelihood, params, data)
        if natural:
            d = fisher(apply, params, data, likelihood=likelihood).solve(d)
        return jax.tree.map(lambda p, s: p - length * s, params, d), params

    return jax.lax.scan(step, params, length=steps + 1)[1]


def loss(apply: Callable, likelihood: str, params: Any, data: tuple) -> jax.Array:
    x, y = data
    return -jax.vmap(as_likelihood(likelihood).log_prob)(apply(params, x), y).mean()


def path(name: str, mass: np.ndarray, length: float, steps: int, natural: bool):
    """The normals on the way, shape (steps + 1, 2): mean and sd."""
    way = WAYS[name]
    start = jnp.array([START[0], way.of_sd(START[1])])
    # A normal for all patients has no inputs.
    data = np.zeros(len(mass)), mass
    params = descend(way.apply, NORMAL, start, data, length, steps, natural)
    mean, log_sd = jax.vmap(way.apply)(params, np.zeros(steps + 1))
    return np.stack([mean, np.exp(log_sd)], 1)


def flow(mass: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The path of natural gradients."""
    start = np.array([START[0], START[0] ** 2 + START[1] ** 2])
    optimum = np.array([mass.mean(), (mass**2).mean()])
    mean, square = (optimum + np.exp(-times)[:, None] * (start - optimum)).T
    return np.stack([mean, np.sqrt(square - mean**2)], 1)


def distance_to(curve: np.ndarray, points: np.ndarray) -> float:
    """That of the furthest point."""
    gaps = points[:, None] - curve
    return float(np.sqrt((gaps**2).sum(-1)).min(1).max())


def two_pairs() -> None:
    print(f"{'':32s}{'KL':>10s}{'½ Δᵀ F Δ':>10s}")
    model, change = WAYS["(mean, log sd)"].apply, jnp.array([1.0, 0.0])
    for sd in (1.0, 100.0):
        p = jnp.array([0.0, np.log(sd)])
        q = p + change
        kl = as_likelihood(NORMAL).kl(tuple(p), tuple(q))
        f = fisher(model, p, jnp.zeros(1), likelihood=NORMAL)
        pair = f"N(0, {sd:g}²) → N(1, {sd:g}²)"
        print(f"{pair:32s}{kl:10.5f}{f.quadratic(change) / 2:10.5f}")


def normals() -> tuple[np.ndarray, dict]:
    mass = load_diabetes(return_X_y=True, scaled=False)[0][:, 2]
    curve = flow(mass, np.linspace(0, 12, 4000))
    print("\nnatural steps: the furthest from the flow", end="")
    print("     plain: the furthest from the flow's path")
    print(f"{'':24s}" + "".join(f"{f'h = {h}':>11s}" for h in LENGTHS))
    plain = {}
    for name, way in WAYS.items():
        print(f"{name:24s}", end="")
        for h in LENGTHS:
            steps = round(TIME / h)
            gap = path(name, mass, h, steps, True) - flow(
                mass, h * np.arange(steps + 1)
            )
            print(f"{np.linalg.norm(gap, axis=1).max():11.5f}", end="")
        plain[name] = path(name, mass, way.length, way.steps, False)
        print(f"{distance_to(curve, plain[name][::10]):11.2f}")
    return curve, plain


def tumours() -> dict[str, np.ndarray]:
    x, y = load_breast_cancer(return_X_y=True)
    x = x[:, :10]
    units = {"raw": x, "standardised": (x - x.mean(0)) / x.std(0)}
    losses, probabilities = {}, {}
    for natural in (True, False):
        for unit, x in units.items():
            start = {"w": jnp.zeros(10), "b": jnp.zeros(())}
            # Plain steps converge up to twice the inverse of the largest eigenvalue.
            f = fisher(regression, start, x, likelihood="bernoulli")
            length = 0.7 if natural else 1 / np.linalg.eigvalsh(f.dense())[-1]
            name = f"{'natural' if natural else 'plain'}, {unit}"
            options = "bernoulli", start, (x, y), length, 50, natural
            params = descend(regression, *options)
            losses[name] = np.asarray(
                jax.vmap(lambda p, x=x: loss(regression, "bernoulli", p, (x, y)))(
                    params
                )
            )
            f = jax.vmap(regression, (0, None))(params, x)
            probabilities[name] = np.asarray(jax.nn.sigmoid(f))
    shown = (0, 1, 2, 5, 10, 20, 50)
    print("\nlogistic regression, loss after" + "".join(f"{i:9d}" for i in shown))
    for name, values in losses.items():
        print(f"{name:31s}" + "".join(f"{values[i]:9.5f}" for i in shown))
    for name in ("natural", "plain"):
        gap = probabilities[f"{name}, raw"] - probabilities[f"{name}, standardised"]
        print(f"{name}: probabilities differ by {abs(gap).max():.1e} at most")
    return losses


def draw(curve: np.ndarray, plain: dict, losses: dict) -> None:
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(12, 3.6), layout="constrained"
    )
    for sd, colour in ((1, "C0"), (100, "C1")):
        grid = np.linspace(-3, 4, 300)
        left.plot(grid, norm.pdf(grid), colour, label=f"N(0, {sd}²)")
        left.plot(grid, norm.pdf(grid - 1 / sd), colour + "--", label=f"N(1, {sd}²)")
    left.set(xlabel="x/sd", title="one apart in the mean: KL 0.5 and 0.00005")
    left.set(ylabel="density × sd", ylim=(0, 0.62))
    left.legend(frameon=False, ncols=2, loc="upper center")
    middle.plot(*curve.T, "C0-", label="natural, all three")
    for name, points in plain.items():
        middle.plot(*points.T, WAYS[name].style, label=f"plain, {name}")
    middle.plot(*curve[-1], "k*", markersize=10)
    middle.set(xlabel="mean", ylabel="sd", title="paths to the best normal")
    for (name, values), style in zip(
        losses.items(), ("C0-", "C9:", "C1-", "C3:"), strict=True
    ):
        right.plot(values, style, label=name)
    right.set(xlabel="step", title="logistic regression: loss")
    middle.set_ylim(4, 17)
    middle.legend(frameon=False, loc="upper center")
    right.legend(frameon=False)
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/parameterization.png", dpi=150)
    print("\nout/parameterization.png: the normals and the descents")


def main() -> None:
    two_pairs()
    curve, plain = normals()
    losses = tumours()
    draw(curve, plain, losses)


if __name__ == "__main__":
    main()
