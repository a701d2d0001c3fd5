"""One step by natural gradients: the one function behind all rows.

At weights θ, on a batch with mean loss L and penalty ½ η ‖θ‖²,

    g = ∇L + η θ,   d = (F + λ + η)⁻¹ g,   s = −α d + μ s_last,   θ⁺ = θ + s,

F a structured curvature, averaged over the steps. Learning rate α and momentum μ are
given, or minimise the quadratic model of the objective with the exact curvature,

    M(s) = gᵀ s + ½ sᵀ (F_exact + λ + η) s,

which takes two products forward through the model. And λ is given, or follows the
reduction ratio of the objective's change and M: larger where it is low, and smaller
where it is high and λ bounded the step, as the radius of a trust region grows only when
a step got to its edge. For where a step of a batch is long anyway, as are those where
all labels are fitted and F vanishes, λ is all that holds it for the other examples.

Source: Martens and Grosse (2015), Optimizing neural networks with Kronecker-factored
approximate curvature, sections 6 and 7; Martens (2010), Deep learning via Hessian-free
optimization; Nocedal and Wright (2006), Numerical optimization, algorithm 4.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from ngvi.fisher.batches import Batch, count
from ngvi.fisher.kinds import GaussNewton, Kind, TrueFisher
from ngvi.fisher.trust_region import adapted_damping
from ngvi.meshes import in_parts
from ngvi.nets.optimizers.lengths import (
    Proposed,
    Quadratic,
    number_now,
    proposed,
)
from ngvi.nets.optimizers.preconditioner import (
    natural_gradient,
    problem_of,
    with_curvature,
)
from ngvi.nets.optimizers.settings import Settings
from ngvi.nets.optimizers.state import Info, State

Objective = Callable[[Float[Array, "p"]], Float[Array, ""]]
"""Of a step: the change of the objective that it makes."""


@partial(jax.jit, static_argnums=0)
def step(
    rule: Settings, state: State, x: Any, y: Any, key: Key[Array, ""]
) -> tuple[State, Info]:
    """One step.

    Args:
        rule: how.
        state: before.
        x, y: a batch.
        key: of the rows that are chosen, labels that are drawn, and random bases.
    """
    batch = in_parts(Batch(x, y), rule.mesh)
    of_rows, of_labels, of_basis = jax.random.split(key, 3)
    for_curvature, for_model = _some_rows(rule, batch, of_rows)
    state = replace(state, damping=_damping(rule, state))
    loss, gradient, change = _objective(rule, state, batch)

    problem = problem_of(rule, state, for_curvature, of_labels)
    state = with_curvature(rule, state, problem, gradient, of_basis)
    average, averaged = _averaged(rule, state, gradient)
    natural, state = natural_gradient(rule, state, problem, averaged)

    # Some rows were chosen so that they are few enough.
    parts = rule.accumulate if count(for_model) == count(batch) else 1

    def quadratic(directions: Float[Array, "k p"]) -> Float[Array, "k k"]:
        return state.model.quadratic(
            state.weights,
            state.likelihood,
            _model_kind(rule),
            for_model,
            parts,
            directions,
        )

    planned = proposed(rule, state, natural, gradient, quadratic)
    checked = _checked(rule, state, planned, gradient, quadratic, change)
    taken = checked.part * planned.step
    taken = jnp.where(checked.accepted, taken, 0)
    info = Info(
        loss=loss,
        reduction_ratio=checked.ratio,
        damping=state.damping,
        learning_rate=planned.learning_rate,
        momentum=planned.momentum,
        length=checked.part * jnp.sqrt(planned.square),
        cosine=_cosine(-gradient, planned.step),
        accepted=checked.accepted,
    )
    after = replace(
        state,
        weights=state.weights + taken,
        velocity=taken,
        average=average,
        damping=checked.damping,
        steps=state.steps + 1,
    )
    return after, info


# -- the objective ---------------------------------------------------------------------


def _some_rows(
    rule: Settings, batch: Batch, key: Key[Array, ""]
) -> tuple[Batch, Batch]:
    """Examples for the curvature, and for the quadratic model: evenly spaced, from any
    place in the batch on."""
    n = count(batch)
    numbers = [min(k or n, n) for k in (rule.curvature_rows, rule.model_rows)]
    if min(numbers) == n:
        return batch, batch
    start = jax.random.randint(key, (), 0, n)

    def spaced(k: int) -> Batch:
        if k == n:
            return batch
        rows = (start + jnp.arange(k) * n // k) % n
        return in_parts(jax.tree.map(lambda leaf: leaf[rows], batch), rule.mesh)

    return spaced(numbers[0]), spaced(numbers[1])


def _model_kind(rule: Settings) -> Kind:
    """Of the exact curvature: that which the preconditioner approximates."""
    kind = rule.measure.kind
    return kind if isinstance(kind, GaussNewton) else TrueFisher()


def _objective(
    rule: Settings, state: State, batch: Batch
) -> tuple[Float[Array, ""], Float[Array, "p"], Objective]:
    """L and g of the objective, and how it changes with a step."""
    model, w, parts = state.model, state.weights, rule.accumulate
    loss, of_batch = model.gradient(w, state.likelihood, batch, parts)
    gradient = of_batch
    if state.anchor is not None:
        # SVRG: what the batch's gradient was too large by, where all data are known.
        there = state.anchor.weights
        _, at_anchor = model.gradient(there, state.likelihood, batch, parts)
        gradient = of_batch - at_anchor + state.anchor.gradient
    shift = gradient - of_batch

    def change(s: Float[Array, "p"]) -> Float[Array, ""]:
        after = model.loss(w + s, state.likelihood, batch, parts)
        linear = 0.0 if state.anchor is None else shift @ s
        return after - loss + linear + rule.l2 * (w @ s + s @ s / 2)

    gradient = gradient + rule.l2 * w
    if state.trainable is not None:
        gradient = gradient * state.trainable
    return loss, gradient, change


def _averaged(
    rule: Settings, state: State, gradient: Float[Array, "p"]
) -> tuple[Float[Array, "p"] | None, Float[Array, "p"]]:
    """The running average, and the same with its start corrected."""
    if state.average is None:
        return None, gradient
    decay = rule.gradient_decay
    average = decay * state.average + (1 - decay) * gradient
    # What is not finite would stay in it.
    finite = jnp.isfinite(gradient @ gradient)
    average = jnp.where(finite, average, state.average)
    return average, average / (1 - decay ** (state.steps + 1).astype(gradient.dtype))


# -- whether it keeps its promise ------------------------------------------------------


class _Checked(NamedTuple):
    part: Float[Array, ""]
    """Of the step, after halving."""
    accepted: Bool[Array, ""]
    ratio: Float[Array, ""]
    damping: Float[Array, ""]
    """Of the next step."""


def _checked(
    rule: Settings,
    state: State,
    planned: Proposed,
    gradient: Float[Array, "p"],
    quadratic: Quadratic,
    change: Objective,
) -> _Checked:
    s, one = planned.step, jnp.ones((), gradient.dtype)
    finite = jnp.isfinite(s @ s) & jnp.isfinite(gradient @ gradient)
    every = rule.adapt_every
    adapts = (state.steps + 1) % every == 0 if every else jnp.asarray(False)
    part, descends, changed = one, jnp.asarray(True), one * jnp.nan
    if rule.max_halvings:
        part, changed = _halved(s, change, finite, rule.max_halvings)
        descends = changed < 0

    def measured() -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The reduction ratio, and λ's part of the curvature along the step."""
        square = planned.square
        if rule.learning_rate is not None and not rule.diagnostics:
            square = quadratic(s[None])[0, 0]
        square = square + (state.damping + rule.l2) * (s @ s)
        model = part * (gradient @ s) + part**2 * square / 2
        ratio = (changed if rule.max_halvings else change(s)) / model
        return ratio, state.damping * (s @ s) / square

    nothing = one * jnp.nan, one * jnp.nan
    ratio, share = nothing
    if rule.diagnostics:
        ratio, share = measured()
    elif every:
        ratio, share = jax.lax.cond(adapts, measured, lambda: nothing)
    accepted = finite & descends
    after = _adapted(rule, state, adapts, ratio, share, accepted)
    return _Checked(part, accepted, ratio, after)


def _halved(
    s: Float[Array, "p"], change: Objective, finite: Bool[Array, ""], most: int
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The first part ½ᵏ of a step that descends, and the change it makes."""

    def going(tried: tuple[Int[Array, ""], Array, Array]) -> Bool[Array, ""]:
        k, _, changed = tried
        return (k < most) & finite & ~(changed < 0)

    def halve(tried: tuple[Int[Array, ""], Array, Array]) -> tuple[Any, Any, Any]:
        k, part, _ = tried
        return k + 1, part / 2, change(part / 2 * s)

    start = jnp.asarray(0), jnp.ones((), s.dtype), change(s)
    _, part, changed = jax.lax.while_loop(going, halve, start)
    return part, changed


def _adapted(
    rule: Settings,
    state: State,
    adapts: Bool[Array, ""],
    ratio: Float[Array, ""],
    share: Float[Array, ""],
    accepted: Bool[Array, ""],
) -> Float[Array, ""]:
    """λ of the next step."""
    if not rule.adapt_every:
        return state.damping
    factor = rule.damping_factor**-rule.adapt_every
    after = adapted_damping(state.damping, ratio, factor)
    binds = share >= rule.binding
    after = jnp.where(binds, after, jnp.maximum(after, state.damping))
    after = jnp.where(adapts | ~accepted, after, state.damping)
    return jnp.clip(after, rule.min_damping, rule.max_damping)


def _damping(rule: Settings, state: State) -> Float[Array, ""]:
    if not callable(rule.damping):
        return state.damping
    return number_now(rule.damping, state, state.damping.dtype)


def _cosine(a: Float[Array, "p"], b: Float[Array, "p"]) -> Float[Array, ""]:
    return a @ b / jnp.sqrt((a @ a) * (b @ b))
