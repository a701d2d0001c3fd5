"""One task after another: the posterior of the last is the prior of the next.

A net with a pair of outputs for each task tells handwritten digits apart: 0 from 1,
then 2 from 3, and so on; no example of an earlier task is seen again. Bayes' rule needs
none: p(w | D₁, D₂) ∝ p(D₂ | w) p(w | D₁), and the last posterior N(m, diag S⁻¹), found
by natural gradients (VOGN), is the prior of the next task, its mean and its precisions.
Training that goes on from the last weights has nothing to hold it, and forgets.

Source: Nguyen, Li, Bui and Turner (2018), Variational continual learning.

    python examples/continual_learning.py
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from ngvi.fisher import MLP
from ngvi.nets import vogn
from ngvi.nets.baselines import maximum_a_posteriori

NET = MLP((64, 50, 10))
TASKS = [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
SIZE = 240
"""Examples of a task to learn from: equal numbers share one program."""
Task = tuple[dict[str, np.ndarray], np.ndarray]


def apply(params: Any, x: dict[str, jax.Array]) -> jax.Array:
    """The two outputs of each example's own task."""
    columns = 2 * x["task"][:, None] + jnp.arange(2)
    return jnp.take_along_axis(NET(params, x["image"]), columns, 1)


def split_digits() -> tuple[list[Task], list[Task]]:
    """The tasks, to learn and to test."""
    images, digits = load_digits(return_X_y=True)
    images = (images / 8 - 1).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(images))
    learn, test = [], []
    for k, pair in enumerate(TASKS):
        rows = order[np.isin(digits[order], pair)]
        for part, chosen in ((learn, rows[:SIZE]), (test, rows[SIZE:])):
            x = {"image": images[chosen], "task": np.full(len(chosen), k)}
            part.append((x, (digits[chosen] == pair[1]).astype(int)))
    return learn, test


def bayesian(tasks: list[Task], epochs: int) -> list[Any]:
    """The mean weights after each task."""
    params = NET.init(jax.random.key(0))
    precision, mean = jax.tree.map(jnp.ones_like, params), params
    mean = jax.tree.map(jnp.zeros_like, mean)
    after = []
    for k, (x, y) in enumerate(tasks):
        row = vogn(
            apply,
            "categorical",
            SIZE,
            prior_precision=precision,
            prior_mean=mean,
            initial_curvature=0.01,
            learning_rate=0.05,
            precision_rate=0.05,
            samples=4,
            antithetic=True,
        )
        state = row.init(params, (x, y))
        state, _ = row.run(
            state, (x, y), jax.random.key(k), epochs=epochs, batch_size=SIZE
        )
        posterior = row.posterior(state)
        params = mean = posterior.params
        precision = posterior.prior.layout.tree(posterior.precision.diagonal())
        after.append(params)
    return after


def going_on(tasks: list[Task], epochs: int) -> list[Any]:
    """The weights after each task, trained from those after the last."""
    training = maximum_a_posteriori(apply, "categorical", SIZE, learning_rate=0.01)
    params = NET.init(jax.random.key(0))
    after = []
    for k, task in enumerate(tasks):
        state = training.init(params, task)
        state, _ = training.run(
            state, task, jax.random.key(k), epochs=epochs, batch_size=SIZE
        )
        params = training.posterior(state).params
        after.append(params)
    return after


def accuracies(after: list[Any], tests: list[Task]) -> np.ndarray:
    """Of task j after task i, at [i, j]; NaN before it was learned."""
    table = np.full((len(after), len(tests)), np.nan)
    for i, params in enumerate(after):
        for j, (x, y) in enumerate(tests[: i + 1]):
            table[i, j] = (np.argmax(apply(params, x), 1) == y).mean()
    return table


def main() -> None:
    learn, test = split_digits()
    ways = {"the posterior is the next prior": bayesian, "training goes on": going_on}
    tables = {
        name: accuracies(way(learn, epochs=100), test) for name, way in ways.items()
    }
    for name, table in tables.items():
        print(f"{name + ': accuracy after':48s}", end="")
        print("".join(f"{f'{a} or {b}':>9s}" for a, b in TASKS))
        for j, (a, b) in enumerate(TASKS):
            cells = ["" if np.isnan(v) else f"{v:.3f}" for v in table[:, j]]
            print(f"{f'of {a} or {b}':48s}" + "".join(f"{cell:>9s}" for cell in cells))
        print(f"{'of all so far':48s}", end="")
        print("".join(f"{np.nanmean(row):9.3f}" for row in table) + "\n")
    draw(tables)


def draw(tables: dict[str, np.ndarray]) -> None:
    figure, axes = plt.subplots(
        1, 2, figsize=(10, 3.4), sharey=True, layout="constrained"
    )
    after = np.arange(1, len(TASKS) + 1)
    for axis, (name, table) in zip(axes, tables.items(), strict=True):
        for j, (a, b) in enumerate(TASKS):
            axis.plot(after, table[:, j], f"C{j}.-", label=f"{a} or {b}")
        means = [np.nanmean(row) for row in table]
        axis.plot(after, means, "k--", linewidth=2, label="mean so far")
        axis.axhline(0.5, color="0.7", linewidth=1)
        axis.set(title=name, xlabel="after task", xticks=after)
    axes[0].set_ylabel("test accuracy")
    axes[1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/continual_learning.png", dpi=150)
    print("out/continual_learning.png: the accuracy of every task as others follow")


if __name__ == "__main__":
    main()
