"""Training as one compiled program: epochs of shuffled batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ngvi.fisher.batches import count
from ngvi.nets.state import Phase, State
from ngvi.nets.update import Rule, step


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
    steps = shuffled_steps(key, x, y, epochs, batch_size)

    def one(phase: Phase, state: State, of_step: tuple[Array, Array]) -> Any:
        rows, key = of_step
        x_batch, y_batch = jax.tree.map(lambda leaf: leaf[rows], (x, y))
        state, info = step(rule, state, x_batch, y_batch, key, phase)
        return state, info.loss

    plain, measure, renew = (
        partial(jax.lax.scan, partial(one, phase)) for phase in Phase
    )
    often, seldom = rule.measure_every, rule.refresh
    measured = _repeated(often, _in_turn(1, measure, plain))
    renewed = _in_turn(often, _in_turn(1, renew, plain), measured)
    return _repeated(seldom, renewed)(state, steps)


# So that S is not a matter of a condition, of which `vmap` would compute both sides.

Run = Callable[[State, Any], tuple[State, Array]]
"""Of steps, one after the other: their batches to their losses."""


def _in_turn(lead: int, first: Run, others: Run) -> Run:
    """The first steps in one way, any others in another."""

    def run(state: State, steps: Any) -> tuple[State, Array]:
        state, losses = first(state, jax.tree.map(lambda leaf: leaf[:lead], steps))
        if _length(steps) <= lead:
            return state, losses
        rest = jax.tree.map(lambda leaf: leaf[lead:], steps)
        state, more = others(state, rest)
        return state, jnp.concatenate([losses, more])

    return run


def _repeated(size: int, run: Run) -> Run:
    """For every so many steps the same anew; the last time for those that are left."""

    def runs(state: State, steps: Any) -> tuple[State, Array]:
        times = _length(steps) // size
        whole = jax.tree.map(
            lambda leaf: leaf[: times * size].reshape(times, size, *leaf.shape[1:]),
            steps,
        )
        state, losses = jax.lax.scan(run, state, whole)
        losses = losses.reshape(-1)
        rest = jax.tree.map(lambda leaf: leaf[times * size :], steps)
        if not _length(rest):
            return state, losses
        state, more = run(state, rest)
        return state, jnp.concatenate([losses, more])

    return runs


def _length(steps: Any) -> int:
    return len(jax.tree.leaves(steps)[0])


def shuffled_steps(
    key: Key[Array, ""], x: Any, y: Any, epochs: int, batch_size: int
) -> tuple[Int[Array, "steps b"], Key[Array, "steps"]]:
    """The rows of every batch, and a key for each; arguments as of `run_epochs`."""
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    lengths = {len(leaf) for leaf in jax.tree.leaves((x, y))}
    if len(lengths) > 1:
        raise ValueError(
            f"x and y must have as many examples, got lengths {sorted(lengths)}"
        )
    of_order, of_steps = jax.random.split(key)
    batches = shuffled_batches(of_order, count(x), epochs, batch_size)
    return batches, jax.random.split(of_steps, len(batches))


def shuffled_batches(
    key: Key[Array, ""], n: int, epochs: int, batch_size: int
) -> Int[Array, "steps b"]:
    """The rows of every batch."""
    size = min(batch_size, n)
    number = n // size
    orders = jax.vmap(lambda k: jax.random.permutation(k, n))(
        jax.random.split(key, epochs)
    )
    return orders[:, : number * size].reshape(epochs * number, size)
