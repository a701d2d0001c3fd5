"""Training as one compiled program: epochs of shuffled batches."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ngvi.fisher.batches import count
from ngvi.nets.update import Rule, State, step


@partial(jax.jit, static_argnames=("rule", "epochs", "batch_size"))
def run_epochs(
    rule: Rule,
    state: State,
    x: Any,
    y: Any,
    key: Key[Array, ""],
    *,
    epochs: int,
    batch_size: int,
) -> tuple[State, Float[Array, "steps"]]:
    """Some epochs, and the loss of every step.

    Under `vmap` over states, data and keys many nets train at once; S is then still
    factorised only every `rule.refresh` steps.

    Args:
        rule: how q moves.
        state: where it starts.
        x, y: all N examples.
        key: of the order of the examples, and of all that is drawn.
        epochs: how many.
        batch_size: B; no more than N are taken. Examples that fill no batch wait for
            another epoch's order.

    Raises:
        ValueError: no epochs, empty batches, x and y of different lengths.
    """
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    lengths = {len(leaf) for leaf in jax.tree.leaves((x, y))}
    if len(lengths) > 1:
        raise ValueError(
            f"x and y must have as many examples, got lengths {sorted(lengths)}"
        )
    of_order, of_steps = jax.random.split(key)
    batches = _batches(of_order, count(x), epochs, batch_size)
    total = len(batches)
    keys = jax.random.split(of_steps, total)
    size = min(rule.refresh, total)
    cycles, rest = divmod(total, size)

    def one(due: bool, state: State, of_step: tuple[Array, Array]) -> Any:
        rows, key = of_step
        x_batch, y_batch = jax.tree.map(lambda leaf: leaf[rows], (x, y))
        state, info = step(rule, state, x_batch, y_batch, key, due)
        return state, info.loss

    def cycle(state: State, of_steps: tuple[Array, Array]) -> Any:
        """The first step factorises S, the others use it."""
        state, first = one(True, state, jax.tree.map(lambda leaf: leaf[0], of_steps))
        if len(of_steps[0]) == 1:
            return state, first[None]
        others = jax.tree.map(lambda leaf: leaf[1:], of_steps)
        state, losses = jax.lax.scan(partial(one, False), state, others)
        return state, jnp.concatenate([first[None], losses])

    whole = cycles * size
    in_cycles = jax.tree.map(
        lambda leaf: leaf[:whole].reshape(cycles, size, *leaf.shape[1:]),
        (batches, keys),
    )
    state, losses = jax.lax.scan(cycle, state, in_cycles)
    losses = losses.reshape(-1)
    if rest:
        left = jax.tree.map(lambda leaf: leaf[whole:], (batches, keys))
        state, more = cycle(state, left)
        losses = jnp.concatenate([losses, more])
    return state, losses


def _batches(
    key: Key[Array, ""], n: int, epochs: int, batch_size: int
) -> Int[Array, "steps b"]:
    """The rows of every batch."""
    size = min(batch_size, n)
    number = n // size
    orders = jax.vmap(lambda k: jax.random.permutation(k, n))(
        jax.random.split(key, epochs)
    )
    return orders[:, : number * size].reshape(epochs * number, size)
