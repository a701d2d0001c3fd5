"""One step by natural gradients: the one function behind all rows.

At weights θ, on a batch with mean loss L and penalty ½ η ‖θ‖²,

    g = ∇L + η θ,   d = (F + λ + η)⁻¹ g,   s = −α d + μ s_last,   θ⁺ = θ + s,

F a structured curvature, averaged over the steps. Learning rate α and momentum μ are
given, or minimise the quadratic model of the objective with the exact curvature,

    M(s) = gᵀ s + ½ sᵀ (F_exact + λ + η) s,

which takes two products forward through the model. And λ is given, or follows the
reduction ratio of the objective's change and M.

Source: Martens and Grosse (2015), Optimizing neural networks with Kronecker-factored
approximate curvature, sections 6 and 7; Martens (2010), Deep learning via Hessian-free
optimization.
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
from ngvi.nets.optimizers.devices import on_mesh
from ngvi.nets.optimizers.preconditioner import (
    natural_gradient,
    problem_of,
    with_curvature,
)
from ngvi.nets.optimizers.settings import Number, Settings
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
    batch = on_mesh(Batch(x, y), rule.mesh)
    of_rows, of_labels, of_basis = jax.random.split(key, 3)
    for_curvature, for_model = _some_rows(rule, batch, of_rows)
    state = replace(state, damping=_damping(rule, state))
    loss, gradient, change = _objective(rule, state, batch)

    problem = problem_of(rule, state, for_curvature, of_labels)
    state = with_curvature(rule, state, problem, gradient, of_basis)
    average, averaged = _averaged(rule, state, gradient)
    natural, state = natural_gradient(rule, state, problem, averaged)

    def quadratic(directions: Float[Array, "k p"]) -> Float[Array, "k k"]:
        return state.model.quadratic(
            state.weights,
            state.likelihood,
            _model_kind(rule),
            for_model,
            rule.accumulate,
            directions,
        )

    proposed = _proposed(rule, state, natural, gradient, quadratic)
    checked = _checked(rule, state, proposed, gradient, quadratic, change)
    taken = checked.part * proposed.step
    taken = jnp.where(checked.accepted, taken, 0)
    info = Info(
        loss=loss,
        reduction_ratio=checked.ratio,
        damping=state.damping,
        learning_rate=proposed.learning_rate,
        momentum=proposed.momentum,
        length=checked.part * jnp.sqrt(proposed.square),
        cosine=_cosine(-gradient, proposed.step),
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
        return on_mesh(jax.tree.map(lambda leaf: leaf[rows], batch), rule.mesh)

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
    return average, average / (1 - decay ** (state.steps + 1).astype(gradient.dtype))


# -- the step's length -----------------------------------------------------------------


class _Proposed(NamedTuple):
    step: Float[Array, "p"]
    learning_rate: Float[Array, ""]
    momentum: Float[Array, ""]
    square: Float[Array, ""]
    """sᵀ F s, NaN where it is not known."""


def _proposed(
    rule: Settings,
    state: State,
    natural: Float[Array, "p"],
    gradient: Float[Array, "p"],
    quadratic: Callable[[Array], Array],
) -> _Proposed:
    """s = −α d + μ s_last."""
    dtype = gradient.dtype
    decay = jnp.asarray(_at(rule.weight_decay, state.steps), dtype)
    decayed = decay * (
        state.weights if state.decayed is None else state.decayed * state.weights
    )
    if state.trainable is not None:
        decayed = decayed * state.trainable
    has_decay = callable(rule.weight_decay) or rule.weight_decay > 0
    direction = natural + decayed if has_decay else natural
    both = jnp.stack([direction, state.velocity])
    exact = None
    if rule.learning_rate is None or rule.diagnostics:
        exact = quadratic(both)
    given = [
        None if number is None else jnp.asarray(_at(number, state.steps), dtype)
        for number in (rule.learning_rate, rule.momentum)
    ]
    if given[0] is None:
        assert exact is not None
        a = exact + (state.damping + rule.l2) * (both @ both.T)
        given = list(_best(a, both @ gradient, given[1]))
    elif rule.max_kl is not None:
        # ½ α² gᵀ d is ½ sᵀ (F + λ) s of the natural gradient's part.
        kl = given[0] ** 2 * (gradient @ natural) / 2
        given[0] = given[0] * jnp.minimum(1, jnp.sqrt(rule.max_kl / kl))
    coefficients = jnp.stack([-given[0], given[1]])
    square = jnp.asarray(jnp.nan, dtype)
    if exact is not None:
        square = jnp.maximum(coefficients @ exact @ coefficients, 0)
    if rule.learning_rate is None and rule.max_kl is not None:
        part = jnp.minimum(1, jnp.sqrt(2 * rule.max_kl / square))
        coefficients, square = part * coefficients, part**2 * square
    s = coefficients @ both
    return _Proposed(s, -coefficients[0], coefficients[1], square)


def _best(
    a: Float[Array, "2 2"], b: Float[Array, "2"], momentum: Float[Array, ""] | None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """α and μ that minimise bᵀ c + ½ cᵀ a c, c = (−α, μ); α alone at a given μ."""
    if momentum is None:
        determinant = a[0, 0] * a[1, 1] - a[0, 1] ** 2
        # Directions may be parallel to rounding, and the first step has none before it.
        apart = determinant > 8 * jnp.finfo(a.dtype).eps * a[0, 0] * a[1, 1]
        best = (a[0, 1] * b[0] - a[0, 0] * b[1]) / jnp.where(apart, determinant, 1)
        momentum = jnp.where(apart, best, 0)
    return (b[0] + a[0, 1] * momentum) / a[0, 0], momentum


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
    proposed: _Proposed,
    gradient: Float[Array, "p"],
    quadratic: Callable[[Array], Array],
    change: Objective,
) -> _Checked:
    s, one = proposed.step, jnp.ones((), gradient.dtype)
    finite = jnp.isfinite(s @ s) & jnp.isfinite(gradient @ gradient)
    every = rule.adapt_every
    adapts = (state.steps + 1) % every == 0 if every else jnp.asarray(False)
    part, descends, changed = one, jnp.asarray(True), one * jnp.nan
    if rule.max_halvings:
        part, changed = _halved(s, change, finite, rule.max_halvings)
        descends = changed < 0

    def ratio() -> Float[Array, ""]:
        square = proposed.square
        if rule.learning_rate is not None and not rule.diagnostics:
            square = quadratic(s[None])[0, 0]
        square = square + (state.damping + rule.l2) * (s @ s)
        model = part * (gradient @ s) + part**2 * square / 2
        return (changed if rule.max_halvings else change(s)) / model

    found = one * jnp.nan
    if rule.diagnostics:
        found = ratio()
    elif every:
        found = jax.lax.cond(adapts, ratio, lambda: one * jnp.nan)
    accepted = finite & descends
    return _Checked(
        part, accepted, found, _adapted(rule, state, adapts, found, accepted)
    )


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
    accepted: Bool[Array, ""],
) -> Float[Array, ""]:
    """λ of the next step."""
    if not rule.adapt_every:
        return state.damping
    factor = rule.damping_factor**-rule.adapt_every
    after = adapted_damping(state.damping, ratio, factor)
    after = jnp.where(adapts | ~accepted, after, state.damping)
    return jnp.clip(after, rule.min_damping, rule.max_damping)


def _damping(rule: Settings, state: State) -> Float[Array, ""]:
    if not callable(rule.damping):
        return state.damping
    return jnp.asarray(rule.damping(state.steps), state.damping.dtype)


def _at(number: Number, steps: Int[Array, ""]) -> Any:
    return number(steps) if callable(number) else number


def _cosine(a: Float[Array, "p"], b: Float[Array, "p"]) -> Float[Array, ""]:
    return a @ b / jnp.sqrt((a @ a) * (b @ b))
