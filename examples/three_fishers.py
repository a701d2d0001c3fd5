"""Three matrices that go by the name of Fisher, and what each does to a descent.

    true        E[s sᵀ] over y ~ p(y | f(x)), s = ∇ log p(y | f(x)): a closed form
    sampled     the same with one label drawn for each x: unbiased
    empirical   s sᵀ at the labels of the data: a spread of gradients, no curvature

First a straight line through the progression of diabetes against body mass. The true
matrix does not depend on the labels, and its one step arrives, whatever the noise's sd
is taken to be. The empirical one has the residuals in it: its steps shrink where the
fit is bad, turn, and are too short or too long by the square of an sd that is wrong.
Then a network for handwritten digits, trained with each, all steps with the best of
eighteen lengths; and how far the matrices are from one another on the way.

Source: Kunstner, Balles and Hennig (2019), Limitations of the empirical Fisher
approximation for natural gradient descent.

    python examples/three_fishers.py
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from jax.flatten_util import ravel_pytree  # noqa: E402
from sklearn.datasets import load_diabetes, load_digits  # noqa: E402

from ngvi.fisher import MLP, fisher  # noqa: E402
from ngvi.fisher.likelihoods import Categorical, Gaussian, Likelihood  # noqa: E402

STYLES = {"true": "C0-", "sampled": "C2--", "empirical": "C1-."}
LINE_STEPS, STEPS = 200, 40
HIDDEN, PRIOR = 10, 1e-3
NET = MLP((16, HIDDEN, 10))
LENGTHS = 2.0 ** np.arange(-12, 6)
CORNERS = [(0.0, -40.0), (300.0, -40.0), (0.0, 120.0), (300.0, 120.0)]


def line(params: jax.Array, x: jax.Array) -> jax.Array:
    return params[0] + params[1] * x


def random_network() -> list:
    rng = np.random.default_rng(0)
    return [
        {"w": rng.normal(size=(n, m)) / np.sqrt(n), "b": np.zeros(m)}
        for n, m in pairwise(NET.sizes)
    ]


@partial(jax.jit, static_argnums=0)
def loss(
    apply: Callable, likelihood: Likelihood, params: Any, x: jax.Array, y: jax.Array
) -> jax.Array:
    return -jax.vmap(likelihood.log_prob)(apply(params, x), y).mean()


slope = jax.jit(jax.grad(loss, argnums=2), static_argnums=0)


def fit_line(start: tuple, data: tuple, kind: str, sd: float) -> np.ndarray:
    """Natural-gradient steps of length 1, shape (steps + 1, 2)."""
    path = [jnp.array(start)]
    for i in range(LINE_STEPS):
        gradient = slope(line, Gaussian(sd), path[-1], *data)
        f = fisher(line, path[-1], data, likelihood=Gaussian(sd), kind=kind, key=i)
        path.append(path[-1] - f.solve(gradient))
    return np.array(path)


@jax.jit
def along(params: list, step: list, x: jax.Array, y: jax.Array) -> jax.Array:
    """The penalised loss at all lengths of a step."""

    def at(length: jax.Array) -> jax.Array:
        flat = ravel_pytree(params)[0] - length * ravel_pytree(step)[0]
        tried = ravel_pytree(params)[1](flat)
        return loss(NET, Categorical(), tried, x, y) + PRIOR / 2 * (flat**2).sum()

    return jax.lax.map(at, LENGTHS)


def train(params: list, data: tuple, kind: str) -> tuple[np.ndarray, list[list]]:
    """The losses, and the parameters before every step."""
    losses, path = [], []
    for i in range(STEPS):
        path.append(params)
        f = fisher(NET, params, data, likelihood="categorical", kind=kind, key=i)
        gradient = jax.tree.map(
            lambda g, p: g + PRIOR * p,
            slope(NET, Categorical(), params, *data),
            params,
        )
        step = f.solve(gradient, damping=PRIOR)
        values = along(params, step, *data)
        length = LENGTHS[jnp.nanargmin(values)]
        params = jax.tree.map(lambda p, s, t=length: p - t * s, params, step)
        losses.append(float(jnp.nanmin(values)))
    return np.array(losses), path


def distance(params: list, data: tuple, kind: str) -> float:
    """‖C − F‖/‖F‖ of a matrix C from the true F, Frobenius norms."""
    matrices = [
        np.asarray(fisher(NET, params, data, likelihood="categorical", kind=k).dense())
        for k in (kind, "true")
    ]
    return np.linalg.norm(matrices[0] - matrices[1]) / np.linalg.norm(matrices[1])


def main() -> None:
    x, y = load_diabetes(return_X_y=True, scaled=False)
    mass = (x[:, 2] - x[:, 2].mean()) / x[:, 2].std()
    data = mass, y
    best = np.polyfit(mass, y, 1)[::-1]
    sd = float((y - best[0] - best[1] * mass).std())
    print("a line: steps until within 1 % of the optimum, by the noise's sd assumed")
    factors = (0.1, 0.5, 1.0, 1.5, 2.0)
    print(" " * 12 + "".join(f"{factor * sd:8.1f}" for factor in factors))
    for kind in STYLES:
        cells = []
        for factor in factors:
            path = fit_line(CORNERS[0], data, kind, factor * sd)
            far = np.linalg.norm(path - best, axis=1) > 0.01 * np.linalg.norm(best)
            cells.append("never" if far[-1] else str(np.flatnonzero(far)[-1] + 1))
        print(f"{kind:12s}" + "".join(f"{cell:>8s}" for cell in cells))
    print(f"(the residuals' sd is {sd:.1f}; never: not in {LINE_STEPS})")
    paths = {k: [fit_line(corner, data, k, sd) for corner in CORNERS] for k in STYLES}

    x, y = load_digits(return_X_y=True)
    # Means of 2 × 2 pixels, from −1 to 1.
    x = x.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16) / 8 - 1
    data = x, y
    runs = {k: train(random_network(), data, k) for k in STYLES}
    distances = {
        kind: [distance(params, data, kind) for params in runs["true"][1]]
        for kind in ("sampled", "empirical")
    }
    shown = [0, 1, 2, 5, 10, 20, STEPS - 1]
    print("\na network for digits" + " " * 8 + "".join(f"{i:8d}" for i in shown))
    for kind, (losses, _) in runs.items():
        print(f"{'loss after step, ' + kind:28s}", end="")
        print("".join(f"{losses[i]:8.3f}" for i in shown))
    for kind, values in distances.items():
        print(f"{'distance to true, ' + kind:28s}", end="")
        print("".join(f"{values[i]:8.3f}" for i in shown))
    draw(best, paths, runs, distances)


def draw(best: np.ndarray, paths: dict, runs: dict, distances: dict) -> None:
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(12, 3.4), layout="constrained"
    )
    for kind, style in STYLES.items():
        for i, path in enumerate(paths[kind]):
            label = kind if i == 0 else None
            left.plot(*path.T, style, marker=".", markersize=4, label=label)
    left.plot(*best, "k*", markersize=10)
    left.set(
        xlabel="intercept", ylabel="slope", title="a line: steps from four corners"
    )
    # Where no path goes.
    left.legend(frameon=False, loc="center left")
    for kind, values in distances.items():
        middle.plot(values, STYLES[kind], label=kind)
    middle.set(xlabel="step", ylim=(0, None))
    middle.set_title("digits: relative distance to the true matrix")
    for kind, (losses, _) in runs.items():
        right.plot(np.arange(1, STEPS + 1), losses, STYLES[kind], label=kind)
    right.set(xlabel="step", yscale="log", title="digits: loss, trained with each")
    middle.legend(frameon=False, loc="center right")
    right.legend(frameon=False)
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/three_fishers.png", dpi=150)
    print("\nout/three_fishers.png: the steps, the distances and the losses")


if __name__ == "__main__":
    main()
