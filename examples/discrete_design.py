"""Which experiments to run: the most informative fifteen, of 3⁴⁵ plans.

Three factors (say temperature, pressure and time), each low, middle or high, in fifteen
experiments, from which a quadratic response surface with ten coefficients is to be
fitted. A D-optimal plan X maximises det(XᵀX), which makes the ellipsoid of confidence
of the coefficients the smallest. The search is over 45 variables of three classes each;
the table compares it with as many random plans and with the textbook's answer, the
face-centred central composite design.

    python examples/discrete_design.py
"""

from functools import partial
from itertools import product
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

from ngvi.families import Categorical  # noqa: E402
from ngvi.nes import discrete  # noqa: E402

RUNS, FACTORS, COEFFICIENTS = 15, 3, 10
GENERATIONS, POPSIZE, SEARCHES = 500, 40, 4


def efficiency(levels: jax.Array) -> jax.Array:
    """det(XᵀX)^(1/p)/n of a plan with levels 0, 1, 2, shape (runs, factors); 0 if it
    cannot tell the coefficients apart."""
    a, b, c = (levels - 1).T
    ones = jnp.ones_like(a)
    x = jnp.stack([ones, a, b, c, a * b, a * c, b * c, a * a, b * b, c * c], 1)
    sign, log_det = jnp.linalg.slogdet(x.T @ x)
    return jnp.where(sign > 0, jnp.exp(log_det / COEFFICIENTS) / RUNS, 0.0)


@partial(jax.jit, static_argnums=0)
def search(
    strategy: discrete.Discrete, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The best plan, its efficiency, and the best so far after each generation."""

    def generation(carry: tuple, key: jax.Array) -> tuple[tuple, jax.Array]:
        state, plan, best = carry
        plans = discrete.ask(strategy, state, key)
        values = jax.vmap(efficiency)(plans)
        at = values.argmax()
        plan = jnp.where(values[at] > best, plans[at], plan)
        best = jnp.maximum(best, values[at])
        # Strategies minimise.
        return (discrete.tell(strategy, state, plans, -values), plan, best), best

    any_level = Categorical(jnp.zeros((RUNS, FACTORS, 3)))
    start = discrete.init(strategy, any_level), jnp.zeros((RUNS, FACTORS)), 0.0
    keys = jax.random.split(key, GENERATIONS)
    (_, plan, best), path = jax.lax.scan(generation, start, keys)
    return plan, best, path


@jax.jit
def guess(key: jax.Array) -> jax.Array:
    """The best so far of random plans, a generation's worth at a time."""

    def generation(best: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        plans = jax.random.randint(key, (POPSIZE, RUNS, FACTORS), 0, 3)
        best = jnp.maximum(best, jax.vmap(efficiency)(plans * 1.0).max())
        return best, best

    return jax.lax.scan(generation, 0.0, jax.random.split(key, GENERATIONS))[1]


def composite() -> np.ndarray:
    """Eight corners, six centres of faces, and the centre."""
    faces = [1 + sign * row for row in np.eye(3) for sign in (-1, 1)]
    return np.array([*product((0, 2), repeat=3), *faces, (1, 1, 1)], float)


def main() -> None:
    strategy = discrete.natural(RUNS * FACTORS, popsize=POPSIZE)
    keys = jax.random.split(jax.random.key(0), SEARCHES)
    plans, found, paths = jax.vmap(partial(search, strategy))(keys)
    random = jax.vmap(guess)(keys)
    textbook = float(efficiency(composite()))

    print(f"{SEARCHES} searches of {GENERATIONS * POPSIZE:,} plans each\n")
    print(f"{'D-efficiency':30s}{'best':>8s}{'worst':>8s}")
    for name, values in (
        ("random plans", random[:, -1]),
        ("ngvi.nes.discrete", found),
        ("central composite design", np.array([textbook])),
    ):
        print(f"{name:30s}{float(values.max()):8.4f}{float(values.min()):8.4f}")
    draw(np.asarray(plans[found.argmax()]), np.asarray(paths), np.asarray(random))


def draw(plan: np.ndarray, paths: np.ndarray, random: np.ndarray) -> None:
    figure = plt.figure(figsize=(10, 3.4), layout="constrained")
    grid = figure.add_gridspec(1, 4, width_ratios=[2.4, 1, 1, 1])
    left = figure.add_subplot(grid[0])
    evaluations = POPSIZE * np.arange(1, GENERATIONS + 1)
    search_lines = left.plot(evaluations, paths.T, "C0-")
    random_lines = left.plot(evaluations, random.T, "C1--")
    textbook = float(efficiency(composite()))
    left.axhline(textbook, color="k", linestyle=":")
    left.text(POPSIZE, textbook, "central composite", va="bottom")
    left.set(xscale="log", xlabel="plans tried", ylabel="D-efficiency, best so far")
    lines = [search_lines[0], random_lines[0]]
    left.legend(lines, ["search", "random plans"], frameon=False, loc="lower right")
    for level, name in enumerate(["low", "middle", "high"]):
        axes = figure.add_subplot(grid[level + 1], aspect="equal")
        points = plan[plan[:, 2] == level, :2]
        points, counts = np.unique(points, axis=0, return_counts=True)
        axes.scatter(*points.T, s=120 * counts, c="C0")
        axes.set(xticks=[0, 1, 2], yticks=[0, 1, 2], xlim=(-0.5, 2.5), ylim=(-0.5, 2.5))
        axes.set(xlabel="factor 1", title=f"factor 3 {name}")
        axes.grid(alpha=0.4)
        if level == 0:
            axes.set_ylabel("factor 2")
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/discrete_design.png", dpi=150)
    print("\nout/discrete_design.png: the searches, and the plan")


if __name__ == "__main__":
    main()
