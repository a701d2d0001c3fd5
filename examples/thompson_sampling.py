"""A bandit with contexts: one draw of the weights decides, and exploring takes care of
itself.

Handwritten digits come by, twenty at a time; for each, one of ten buttons is pressed,
and all that is learned is whether it was the right one. A net 64–32–10 gives the log
odds of each button's reward. Its posterior follows by noisy natural gradients (VOGN) on
the rounds so far, the same for all players, with a weight of 0.1 on the KL divergence:
the posterior at 1 goes on exploring for longer than a game. Players differ in how they
choose:

    Thompson     the best button of a net drawn from the posterior, for every image
    greedy       the best button of the mean net
    ε-greedy     that, but one time in ten any button

A whole game is one program, and the games of all seeds are run side by side.

Source: Thompson (1933), On the likelihood that one unknown probability exceeds another;
Riquelme, Tucker and Snoek (2018), Deep Bayesian bandits showdown.

    python examples/thompson_sampling.py
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from ngvi.fisher import MLP
from ngvi.nets import vogn

NET = MLP((64, 32, 10))
AT_ONCE, STEPS, BATCH = 20, 40, 64
EPSILON = 0.1
STYLES = {"Thompson": "C0-", "ε-greedy": "C2-.", "greedy": "C1--"}


def apply(params: Any, x: dict[str, jax.Array]) -> jax.Array:
    """The log odds of a reward for the button that was pressed."""
    odds = NET(params, x["image"])
    return jnp.take_along_axis(odds, x["button"][:, None], 1)[:, 0]


KL_WEIGHT = 0.1
ROW = vogn(
    apply,
    "bernoulli",
    1,
    prior_precision=3.0,
    kl_weight=KL_WEIGHT,
    learning_rate=0.05,
    precision_rate=0.05,
    initial_curvature=0.1,
)


def choose(player: str, state: Any, images: jax.Array, key: jax.Array) -> jax.Array:
    """The buttons to press."""
    of_draws, of_guesses, of_coins = jax.random.split(key, 3)
    if player == "Thompson":
        draws = ROW.sample(state, of_draws, (len(images),))
        return jax.vmap(NET)(draws, images).argmax(1)
    best = NET(state.params, images).argmax(1)
    if player == "greedy":
        return best
    guesses = jax.random.randint(of_guesses, best.shape, 0, 10)
    tries = jax.random.bernoulli(of_coins, EPSILON, best.shape)
    return jnp.where(tries, guesses, best)


@partial(jax.jit, static_argnames=("player", "rounds"))
def play(
    player: str, images: jax.Array, digits: jax.Array, key: jax.Array, rounds: int
) -> jax.Array:
    """The reward of every image that came by, shape (rounds · AT_ONCE,)."""
    of_net, of_order, of_rounds = jax.random.split(key, 3)
    total = rounds * AT_ONCE
    order = jax.random.permutation(of_order, len(images))[:total]
    images, digits = images[order], digits[order]
    few = {"image": images[:2], "button": jnp.zeros(2, int)}, jnp.zeros(2)
    state = ROW.init(NET.init(of_net), few)

    def one(carry: tuple, of_round: tuple) -> tuple[tuple, jax.Array]:
        state, buttons, rewards = carry
        first, key = of_round
        of_choice, of_rows, of_steps = jax.random.split(key, 3)
        shown = jax.lax.dynamic_slice_in_dim(images, first, AT_ONCE)
        right = jax.lax.dynamic_slice_in_dim(digits, first, AT_ONCE)
        pressed = choose(player, state, shown, of_choice)
        won = (pressed == right).astype(images.dtype)
        buttons = jax.lax.dynamic_update_slice(buttons, pressed, (first,))
        rewards = jax.lax.dynamic_update_slice(rewards, won, (first,))

        # N grows: batches of the rounds so far stand for all of them.
        seen = first + AT_ONCE
        number = seen.astype(images.dtype)
        state = replace(state, data_size=number, scale=number / KL_WEIGHT)

        def learn(state: Any, of_step: tuple) -> tuple[Any, None]:
            rows, key = of_step
            x = {"image": images[rows], "button": buttons[rows]}
            return ROW.step(state, (x, rewards[rows]), key)[0], None

        rows = jax.random.randint(of_rows, (STEPS, BATCH), 0, seen)
        keys = jax.random.split(of_steps, STEPS)
        state, _ = jax.lax.scan(learn, state, (rows, keys))
        return (state, buttons, rewards), won

    carry = state, jnp.zeros(total, int), jnp.zeros(total, images.dtype)
    firsts = AT_ONCE * jnp.arange(rounds)
    keys = jax.random.split(of_rounds, rounds)
    return jax.lax.scan(one, carry, (firsts, keys))[1].reshape(-1)


def games(player: str, seeds: int, rounds: int) -> np.ndarray:
    """Rewards, shape (seeds, images)."""
    images, digits = load_digits(return_X_y=True)
    data = jnp.asarray(images / 8 - 1, jnp.float32), jnp.asarray(digits)
    keys = jax.random.split(jax.random.key(0), seeds)
    run = jax.vmap(lambda key: play(player, *data, key, rounds))
    return np.asarray(run(keys))


def main() -> None:
    found = {player: games(player, seeds=8, rounds=85) for player in STYLES}
    count = len(found["Thompson"][0])
    print(f"{'mean of 8 games':16s}{'mistakes':>12s}{'(from, to)':>16s}", end="")
    print(f"{'right, last 300':>18s}")
    for player, rewards in found.items():
        regret = (1 - rewards).sum(1)
        print(f"{player:16s}{regret.mean():12.0f}", end="")
        print(f"{f'({regret.min():.0f}, {regret.max():.0f})':>16s}", end="")
        print(f"{rewards[:, -300:].mean():18.3f}")
    print(f"(of {count} images)")
    draw(found)


def draw(found: dict[str, np.ndarray]) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    window = np.ones(100) / 100
    for player, rewards in found.items():
        regret = np.cumsum(1 - rewards, 1)
        style = STYLES[player]
        left.plot(regret.mean(0), style, label=player)
        colour = style[:2]
        left.fill_between(
            np.arange(regret.shape[1]),
            regret.min(0),
            regret.max(0),
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
        rate = np.convolve(rewards.mean(0), window, "valid")
        right.plot(np.arange(len(rate)) + 100, rate, style)
    left.set(xlabel="images", title="mistakes: mean and range of the games")
    left.legend(frameon=False)
    right.set(xlabel="images", title="right among the last hundred", ylim=(0, 1))
    Path("out").mkdir(exist_ok=True)
    figure.savefig("out/thompson_sampling.png", dpi=150)
    print("\nout/thompson_sampling.png: mistakes so far, and the rate of rewards")


if __name__ == "__main__":
    main()
