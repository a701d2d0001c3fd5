"""The natural gradient of a step: curvature averaged, factorised, solved with.

    s_t = (1 − w_t) s_{t−1} + w_t F(batch t),   w_t = (1 − β)/(1 − βᵗ),
    d = (s + λ)⁻¹ g

Curvature may wait some steps to be measured, and longer to be factorised; conjugate
gradients take that of the step's own batch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ngvi.fisher.batches import Batch, count
from ngvi.fisher.problem import Problem
from ngvi.fisher.structures.by_products import MatrixFreeStructure
from ngvi.linalg import (
    BlockOperators,
    Diagonal,
    KroneckerEigen,
    KroneckerFactors,
    PositiveDefinite,
    Semidefinite,
    SemidefiniteBlocks,
    damped_together,
)
from ngvi.nets.optimizers.devices import Task, cost_of, shared_out
from ngvi.nets.optimizers.freezing import restricted
from ngvi.nets.optimizers.measures import Occasion, Rescaled
from ngvi.nets.optimizers.settings import Settings
from ngvi.nets.optimizers.state import State


def problem_of(
    rule: Settings, state: State, batch: Batch, key: Key[Array, ""]
) -> Problem:
    """The batch's curvature at the weights, as the Fisher engine has it."""
    problem = state.model.problem(
        state.weights,
        state.likelihood,
        rule.measure.kind,
        batch,
        key,
        whole=rule.mesh is not None,
    )
    if rule.matrix_free and rule.accumulate > 1:
        return replace(problem, batch_size=-(-count(batch) // rule.accumulate))
    return problem


def with_curvature(
    rule: Settings,
    state: State,
    problem: Problem,
    gradient: Float[Array, "p"],
    key: Key[Array, ""],
) -> State:
    """The state with what of its curvature is due at this step."""
    if rule.matrix_free:
        return state
    t = state.steps
    renew = t % rule.refresh == 0
    weight = _weight(rule.curvature_decay, t // rule.measure_every + 1, gradient.dtype)
    # A batch that makes no finite gradient would stay in the average.
    due = (t % rule.measure_every == 0) & jnp.isfinite(gradient).all()
    damping = state.damping + rule.l2
    occasion = Occasion(weight, renew, damping, state.trainable, rule.mesh)
    site = jax.lax.cond(
        due,
        lambda site: rule.measure.update(site, problem, gradient, key, occasion),
        lambda site: site,
        state.site,
    )
    state = replace(state, site=site)
    if rule.measure.inverse_free:
        return state
    if rule.refresh == 1 or rule.staggered:
        return replace(state, damped=factorised(rule, state))
    damped = jax.lax.cond(
        renew, lambda: factorised(rule, state), lambda: _between(rule, state)
    )
    return replace(state, damped=damped)


def _weight(decay: float, t: Int[Array, ""], dtype: Any) -> Float[Array, ""]:
    """That of the batch in the average of t."""
    t = t.astype(dtype)
    return 1 / t if decay == 1 else (1 - decay) / (1 - decay**t)


def _between(rule: Settings, state: State) -> PositiveDefinite:
    """F + λ where nothing is factorised anew.

    Moments in a basis are those of this step all the same, and so is their λ.
    """
    matrix = rule.measure.matrix(state.site)
    assert state.damped is not None
    if not isinstance(rule.measure, Rescaled):
        return state.damped
    assert isinstance(matrix, SemidefiniteBlocks)
    assert isinstance(state.damped, BlockOperators)
    pairs = zip(matrix.blocks, state.damped.blocks, strict=True)
    return BlockOperators(
        tuple(
            new.damp(state.damping + rule.l2)
            if isinstance(new, KroneckerEigen)
            else old
            for new, old in pairs
        )
    )


def factorised(rule: Settings, state: State) -> PositiveDefinite:
    """F + λ; of a curvature in blocks, those that are due."""
    matrix = rule.measure.matrix(state.site)
    damping = state.damping + rule.l2
    if rule.root:
        return Diagonal.from_entries(jnp.sqrt(matrix.diagonal()) + damping)
    if not isinstance(matrix, SemidefiniteBlocks):
        return matrix.damp(damping)
    if rule.factored and rule.mesh is None and not rule.staggered:
        return _factored(matrix, damping)

    def damped(block: Semidefinite, damping: Array, before: Any) -> Any:
        def made() -> PositiveDefinite:
            if rule.factored:
                return block.damp_factored(damping)
            return block.damp(damping)

        if before is None:
            return made()
        due, old = before
        return jax.lax.cond(due, made, lambda: old)

    befores: list[Any] = [None] * len(matrix.blocks)
    if rule.staggered:
        assert isinstance(state.damped, BlockOperators)
        befores = [
            ((state.steps == 0) | ((state.steps + turn) % rule.refresh == 0), old)
            for turn, old in enumerate(state.damped.blocks)
        ]
    pairs = zip(matrix.blocks, befores, strict=True)
    tasks = [Task(damped, (b, damping, before), cost_of(b)) for b, before in pairs]
    return BlockOperators(tuple(shared_out(tasks, rule.mesh)))


def _factored(matrix: SemidefiniteBlocks, damping: Float[Array, ""]) -> BlockOperators:
    """Each Kronecker factor by itself, all together."""
    products = [b for b in matrix.blocks if isinstance(b, KroneckerFactors)]
    done = iter(damped_together(products, damping))
    blocks = [
        next(done) if isinstance(block, KroneckerFactors) else block.damp(damping)
        for block in matrix.blocks
    ]
    return BlockOperators(tuple(blocks))


def natural_gradient(
    rule: Settings, state: State, problem: Problem, gradient: Float[Array, "p"]
) -> tuple[Float[Array, "p"], State]:
    """d, and the state with what the next solve starts from."""
    if rule.measure.inverse_free:
        damping = state.damping + rule.l2
        return _kept(state, rule.measure.natural(state.site, damping, gradient)), state
    if not rule.matrix_free:
        assert state.damped is not None
        return _kept(state, state.damped.solve(gradient)), state
    free = MatrixFreeStructure().compute(problem, None)
    free = restricted(free, state.trainable)
    damped = free.damp(
        state.damping + rule.l2,
        tolerance=1e-6,
        max_iterations=rule.max_iterations,
    )
    assert state.warm is not None
    start = rule.warm_start * state.warm
    solved, _ = damped.solve_with_info(gradient, rule.progress, start)
    usable = jnp.isfinite(solved @ solved)
    return solved, replace(state, warm=jnp.where(usable, solved, 0))


def _kept(state: State, vector: Float[Array, "p"]) -> Float[Array, "p"]:
    return vector if state.trainable is None else vector * state.trainable
