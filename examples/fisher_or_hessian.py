"""Newton with the Hessian, or with the Fisher matrix? The same for a logistic
regression, not for a network.

Both steps are −(C + λ I)⁻¹ ∇ of a log posterior with prior precision λ; C is the
Hessian or the Fisher matrix of the likelihood. A logistic regression's outputs are
linear in its parameters, and the two matrices are equal. In a network's Hessian there
is the curvature of the outputs as well, of any sign: its steps lead to saddles, or
uphill, where no line search helps. Near a minimum it is the faster of the two. The data
are ten measurements of breast tumours, benign or malignant.

Source: Martens (2020), New insights and perspectives on the natural gradient method.

    python examples/fisher_or_hessian.py
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from jax.flatten_util import ravel_pytree  # noqa: E402
from sklearn.datasets import load_breast_cancer  # noqa: E402

from ngvi.fisher import fisher  # noqa: E402
from ngvi.fisher.likelihoods import Bernoulli  # noqa: E402

HIDDEN, STARTS, STEPS = 6, 12, 40
PRIOR = 1e-3
"""λ, a datum."""
NAMES = {"hessian": "Hessian", "true": "Fisher"}
ENDS = ("minimum", "saddle", "uphill step", "still falling")


def regression(params: dict, x: jax.Array) -> jax.Array:
    return x @ params["w"] + params["b"]


def network(params: dict, x: jax.Array) -> jax.Array:
    hidden = jnp.tanh(x @ params["w1"] + params["b1"])
    return hidden @ params["w2"] + params["b2"]


def random_network(seed: int, inputs: int) -> dict:
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(inputs, HIDDEN)) / np.sqrt(inputs)
    second = rng.normal(size=HIDDEN) / np.sqrt(HIDDEN)
    return {"w1": first, "b1": np.zeros(HIDDEN), "w2": second, "b2": np.zeros(())}


@partial(jax.jit, static_argnums=0)
def loss(apply: Callable, params: dict, x: jax.Array, y: jax.Array) -> jax.Array:
    log_prob = jax.vmap(Bernoulli().log_prob)(apply(params, x), y).mean()
    return PRIOR / 2 * (ravel_pytree(params)[0] ** 2).sum() - log_prob


slope = jax.jit(jax.grad(loss, argnums=1), static_argnums=0)


def curvature(apply: Callable, params: dict, data: tuple, kind: str) -> np.ndarray:
    """Of the loss. A plain matrix: `Curvature.solve` refuses an indefinite one."""
    f = fisher(apply, params, data, likelihood="bernoulli", kind=kind)
    return np.asarray(f.dense()) + PRIOR * np.eye(f.dim)


def descend(
    apply: Callable, params: dict, data: tuple, kind: str
) -> tuple[np.ndarray, dict, str]:
    """The losses, the last parameters, and what they are.

    The longest of the steps 1, ½, ¼, … that lowers the loss is taken.
    """
    losses = [float(loss(apply, params, *data))]
    for _ in range(STEPS):
        gradient, unravel = ravel_pytree(slope(apply, params, *data))
        step = -np.linalg.solve(curvature(apply, params, data, kind), gradient)
        for length in 0.5 ** np.arange(20):
            tried = jax.tree.map(jnp.add, params, unravel(length * step))
            value = float(loss(apply, tried, *data))
            if value < losses[-1]:
                break
        else:
            break
        params, losses = tried, [*losses, value]
    return np.array(losses), params, end(apply, params, data, len(losses) <= STEPS)


def end(apply: Callable, params: dict, data: tuple, stopped: bool) -> str:
    if jnp.linalg.norm(ravel_pytree(slope(apply, params, *data))[0]) > 1e-6:
        return ENDS[2 if stopped else 3]
    lowest = np.linalg.eigvalsh(curvature(apply, params, data, "hessian"))[0]
    return ENDS[0 if lowest > 0 else 1]


def main() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    data = x[:, :10], y

    zero = {"w": np.zeros(10), "b": np.zeros(())}
    newton, scoring = (descend(regression, zero, data, kind)[0] for kind in NAMES)
    print("logistic regression, the loss after each step")
    print(f"{'':6s}{'Hessian':>20s}{'Fisher':>20s}")
    for i, (a, b) in enumerate(zip(newton, scoring, strict=False)):
        print(f"{i:6d}{a:20.14f}{b:20.14f}")

    starts = [random_network(seed, 10) for seed in range(STARTS)]
    spectra = {
        kind: np.linalg.eigvalsh(curvature(network, starts[0], data, kind)) - PRIOR
        for kind in NAMES
    }
    print(f"\nnetwork of {len(spectra['true'])} parameters, eigenvalues at a start")
    for kind, values in spectra.items():
        negative = int((values < -1e-12).sum())
        low, high = values[[0, -1]]
        print(f"{NAMES[kind]:10s}{low:9.1e} to {high:.1e}, {negative} negative")

    runs = {NAMES[k]: [descend(network, p, data, k) for p in starts] for k in NAMES}
    runs["Fisher, then Hessian"] = [
        descend(network, params, data, "hessian") for _, params, _ in runs["Fisher"]
    ]
    print(f"\nnetwork, where {STARTS} starts are after at most {STEPS} steps")
    print(f"{'':22s}{'best loss':>11s}{'median':>11s}", end="")
    print("".join(f"{what:>15s}" for what in ENDS))
    for name, each in runs.items():
        last = np.array([losses[-1] for losses, _, _ in each])
        count = Counter(what for _, _, what in each)
        print(f"{name:22s}{last.min():11.7f}{np.median(last):11.7f}", end="")
        print("".join(f"{count[what]:15d}" for what in ENDS))
    draw(newton, scoring, spectra, runs)


def draw(newton: np.ndarray, scoring: np.ndarray, spectra: dict, runs: dict) -> None:
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(12, 3.4), layout="constrained"
    )
    best = min(newton.min(), scoring.min())
    for losses, style, name in (
        (newton, "C1-o", "Hessian"),
        (scoring, "C0--x", "Fisher"),
    ):
        left.plot(losses - best, style, label=name)
    left.set(yscale="log", ylim=(1e-13, 2), xlabel="step")
    left.set_title("logistic regression: loss above the least")
    for (kind, values), style in zip(spectra.items(), ("C1o", "C0x"), strict=True):
        middle.plot(values, style, markersize=4, label=NAMES[kind])
    middle.axhline(0, color="k", linewidth=0.8)
    middle.set_yscale("symlog", linthresh=1e-4)
    middle.set(xlabel="rank", title="network at a start: eigenvalues")
    markers = {"saddle": "s", "uphill step": "x"}
    for name, colour in (("Hessian", "C1"), ("Fisher", "C0")):
        for i, (losses, _, what) in enumerate(runs[name]):
            label = name if i == 0 else None
            right.plot(losses, colour, alpha=0.6, label=label)
            if what in markers:
                right.plot(len(losses) - 1, losses[-1], colour + markers[what])
    for what, marker in markers.items():
        right.plot([], [], "C1" + marker, label=what)
    right.set(xlabel="step", yscale="log", title=f"network: loss from {STARTS} starts")
    for axes in (left, middle, right):
        axes.legend(frameon=False)
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/fisher_or_hessian.png", dpi=150)
    print("\nout/fisher_or_hessian.png: the spectra and the descents")


if __name__ == "__main__":
    main()
