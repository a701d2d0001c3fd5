"""Two small data sets, a regression and a network: natural gradients beside Adam.

On tables of a few hundred rows the exact Fisher matrix costs little. For a logistic
regression of benign and malignant tumours a natural step is a step of Newton's method;
for a network that tells three wines apart it is one of damped Gauss–Newton. Its length
comes from the quadratic model and its damping from Levenberg and Marquardt's rule, so
nothing is tuned; Adam has the best of its learning rates, by the loss it ends at.

    minimised: −mean log p(class | row) + ½ η ‖θ‖²

    python examples/small_tables.py
"""

from functools import partial
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from sklearn.datasets import load_breast_cancer, load_wine  # noqa: E402

from ngvi.fisher import MLP  # noqa: E402
from ngvi.fisher.likelihoods import Categorical  # noqa: E402
from ngvi.nets.optimizers import natural_gradient  # noqa: E402

PENALTY = 1e-2
RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
ADAM_STEPS, NATURAL_STEPS = 400, 60
EXACT = {
    "curvature_decay": 0.0,
    "adapt_every": 1,
    "damping_factor": 0.5,
    "max_halvings": 10,
}
"""All rows are in every step: nothing is averaged, and the ratio has no noise."""
Data = tuple[jax.Array, jax.Array]


def tables() -> dict[str, tuple[MLP, Data, Data]]:
    """Name: a model, three rows of four, and the others."""
    found = {}
    for name, load, hidden in (
        ("tumours, logistic regression", load_breast_cancer, ()),
        ("wines, a network 13-16-3", load_wine, (16,)),
    ):
        x, y = load(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(y))
        cut = 3 * len(y) // 4
        learn, test = order[:cut], order[cut:]
        x = (x - x[learn].mean(0)) / x[learn].std(0)
        model = MLP((x.shape[1], *hidden, len(np.unique(y))))
        halves = [
            (jnp.asarray(x[rows]), jnp.asarray(y[rows])) for rows in (learn, test)
        ]
        found[name] = model, *halves
    return found


@partial(jax.jit, static_argnums=0)
def objective(model: MLP, params: Any, data: Data) -> jax.Array:
    log_prob = jax.vmap(Categorical().log_prob)(model(params, data[0]), data[1])
    return PENALTY / 2 * optax.tree.norm(params, squared=True) - log_prob.mean()


@partial(jax.jit, static_argnums=0)
def adam(model: MLP, params: Any, data: Data, rate: jax.Array) -> tuple[Any, jax.Array]:
    """The parameters at the end, and the objective before every step."""
    optimizer = optax.adam(rate)

    def step(state: Any, _: None) -> Any:
        params, kept = state
        value, gradient = jax.value_and_grad(partial(objective, model))(params, data)
        updates, kept = optimizer.update(gradient, kept)
        return (optax.apply_updates(params, updates), kept), value

    start = params, optimizer.init(params)
    (params, _), values = jax.lax.scan(step, start, length=ADAM_STEPS)
    return params, values


def natural(model: MLP, params: Any, data: Data) -> tuple[Any, np.ndarray]:
    """The parameters at the end, and the objective before every step."""
    optimizer = natural_gradient(model, "categorical", l2=PENALTY, **EXACT)
    state, values = optimizer.init(params, data), []
    for key in jax.random.split(jax.random.key(0), NATURAL_STEPS):
        values.append(float(objective(model, state.params, data)))
        state, _ = optimizer.step(state, data, key)
    return state.params, np.array(values)


def accuracy(model: MLP, params: Any, data: Data) -> float:
    return float((model(params, data[0]).argmax(-1) == data[1]).mean())


def main() -> None:
    runs: dict[str, dict[str, np.ndarray]] = {}
    for name, (model, learn, test) in tables().items():
        params = model.init(jax.random.key(0))
        ends, values = jax.vmap(partial(adam, model), (None, None, 0))(
            params, learn, jnp.asarray(RATES)
        )
        best = int(values[:, -1].argmin())
        of_adam = jax.tree.map(lambda leaf, best=best: leaf[best], ends)
        found, path = natural(model, params, learn)
        runs[name] = {
            f"Adam, {RATES[best]:g}": np.asarray(values[best]),
            "natural gradient": path,
        }
        lowest = min(path.min(), float(values[best].min()))
        print(f"{name}\n{'':18s}{'steps to within 1e-2':>22s}{'1e-4':>7s}", end="")
        print(f"{'at the end':>14s}{'new rows right':>17s}")
        for way, last in zip(runs[name], (of_adam, found), strict=True):
            above = runs[name][way] - lowest
            cells = [np.flatnonzero(above < gap) for gap in (1e-2, 1e-4)]
            first, second = (str(c[0]) if len(c) else "—" for c in cells)
            print(f"{way:18s}{first:>22s}{second:>7s}", end="")
            print(f"{runs[name][way][-1]:14.6f}{accuracy(model, last, test):17.1%}")
        print()
    draw(runs)


def draw(runs: dict[str, dict[str, np.ndarray]]) -> None:
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axes, (name, paths) in zip(panels, runs.items(), strict=True):
        lowest = min(path.min() for path in paths.values())
        for (way, path), style in zip(paths.items(), ("C1-", "C0.-"), strict=True):
            axes.plot(np.arange(1, len(path) + 1), path - lowest, style, label=way)
        axes.set(xscale="log", yscale="log", ylim=1e-9, xlabel="step", title=name)
        axes.legend(frameon=False)
    panels[0].set_ylabel("objective above the lowest found")
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/small_tables.png", dpi=150)
    print("out/small_tables.png: the objectives by step")


if __name__ == "__main__":
    main()
