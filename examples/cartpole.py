"""A pole on a cart, swung up and balanced by a small network that evolution finds.

The physics, the network and the search are one compiled program: a policy is a pytree
of weights, its return the mean over eight starts with the pole hanging, and the whole
search runs without leaving the device. No gradient is taken: it would have to pass
through 250 steps of an unstable system.

    python examples/cartpole.py
"""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import ngvi
from ngvi.nets.optimizers import CartPole

CART = CartPole()
FORCE, TRACK, STEP, STEPS = CART.force, CART.max_position, CART.time_step, 250
HIDDEN, STARTS, BUDGET = 8, 8, 10_000


def physics(state: jax.Array, force: jax.Array) -> jax.Array:
    """One step of Barto, Sutton and Anderson's cart; θ = 0 is upright."""
    x, v, theta, omega = state
    push, turn = CART.accelerations(state, force)
    v = v + STEP * push
    omega = omega + STEP * turn
    # A wall at each end of the track takes the cart's speed.
    x = x + STEP * v
    v = jnp.where(jnp.abs(x) > TRACK, 0.0, v)
    return jnp.stack([jnp.clip(x, -TRACK, TRACK), v, theta + STEP * omega, omega])


def policy(weights: dict, state: jax.Array) -> jax.Array:
    x, v, theta, omega = state
    seen = jnp.stack([x, v, jnp.sin(theta), jnp.cos(theta), omega])
    hidden = jnp.tanh(weights["in"] @ seen + weights["bias"])
    return FORCE * jnp.tanh(weights["out"] @ hidden)


def episode(weights: dict, start: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The return of one start, between −1 and 1, and the states passed through."""

    def step(state: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        state = physics(state, policy(weights, state))
        return state, state

    _, states = jax.lax.scan(step, start, length=STEPS)
    upright = jnp.cos(states[:, 2]) - 0.1 * jnp.abs(states[:, 0])
    return upright.mean(), states


def starts(seed: int, count: int) -> np.ndarray:
    """Hanging and at rest, nearly."""
    noise = np.random.default_rng(seed).normal(0, 0.1, (count, 4))
    return np.array([0.0, 0.0, np.pi, 0.0]) + noise


def mean_return(weights: dict, at: jax.Array) -> jax.Array:
    return jax.vmap(lambda start: episode(weights, start)[0])(at).mean()


def main() -> None:
    rng = np.random.default_rng(0)
    shapes = {"in": (HIDDEN, 5), "bias": (HIDDEN,), "out": (HIDDEN,)}
    first = {name: 0.1 * rng.standard_normal(shape) for name, shape in shapes.items()}
    began = time.perf_counter()
    found = ngvi.minimize(
        mean_return,
        first,
        args=(starts(0, STARTS),),
        method="cma",
        sigma0=0.5,
        popsize=32,
        budget=BUDGET,
        restarts=0,
        maximize=True,
    )
    took = time.perf_counter() - began

    unseen = starts(1, 200)
    print(f"{found.nfev:,} policies, {found.nfev * STARTS * STEPS:,} steps of physics")
    print(f"in {took:.1f} s, compilation included\n")
    print(
        f"{'policy':10s}{'return':>10s}{'on 200 new starts':>20s}{'end upright':>14s}"
    )
    paths = {}
    for name, weights in (("first", first), ("best", found.x)):
        returns, states = jax.vmap(lambda s, w=weights: episode(w, s))(unseen)
        upright = (jnp.cos(states[:, -50:, 2]) > 0.9).all(1).mean()
        seen = float(mean_return(weights, starts(0, STARTS)))
        print(f"{name:10s}{seen:10.3f}{float(returns.mean()):20.3f}{upright:14.0%}")
        paths[name] = np.asarray(states[0])
    draw(found.history, paths)


def draw(history: dict, paths: dict[str, np.ndarray]) -> None:
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(11, 3.2), layout="constrained"
    )
    for column, style in (("median", "C0--"), ("best", "C0-")):
        left.plot(history["evaluations"], history[column], style, label=column)
    left.set(
        xscale="log",
        xlabel="policies tried",
        ylabel="return",
        title="a generation's returns",
    )
    seconds = STEP * np.arange(1, STEPS + 1)
    for (name, path), style in zip(paths.items(), ("C7--", "C1-"), strict=True):
        middle.plot(seconds, np.cos(path[:, 2]), style, label=name)
        right.plot(seconds, path[:, 0], style, label=name)
    middle.set(xlabel="seconds", title="height of the pole's tip (1 is upright)")
    right.set(xlabel="seconds", title="position of the cart, metres")
    for axes in (left, middle, right):
        axes.legend(frameon=False)
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/cartpole.png", dpi=150)
    print("\nout/cartpole.png: the search, the pole and the cart")


if __name__ == "__main__":
    main()
