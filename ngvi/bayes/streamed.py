"""The steps of a fit to data that are read in batches.

With ℓ, ∇ℓ and so the estimate of a natural gradient summed over batches, an epoch is
one trial step of the fit that has all data: accepted or not, with the Fisher length as
the stopping rule and unseen draws. Nothing is noisy, and no rate is to be chosen.

It begins with a pass of sequential updating (the prior, then one natural step or a few
for each batch, each batch once), which ends a fraction of an sd from where the epochs
then take it. A stream that can be read only once ends there.

Source: Khan and Rue (2023), The Bayesian learning rule; Jones, Chang and Murphy (2024),
Bayesian online natural gradient (BONG).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro import handlers

from ngvi.bayes.checks import faults, faults_in_words, undefined_arguments
from ngvi.bayes.diagnostics import EPOCHS_USED
from ngvi.bayes.model_trace import is_observed
from ngvi.bayes.numpyro_model import ModelTarget
from ngvi.bayes.problem import Problem
from ngvi.bayes.reader import Numbered
from ngvi.bayes.stream import StreamError
from ngvi.bayes.sums import OneBatch, Sums, placed
from ngvi.bayes.target import Data, Target
from ngvi.families import Gaussian
from ngvi.mirror import loop
from ngvi.mirror.draws import antithetic
from ngvi.mirror.estimates import FirstOrder
from ngvi.mirror.trial import decide, propose

# Below this Fisher length a step is expected to arrive: unseen draws are read along.
_ARRIVING = 1.0
# Of a batch in the first pass: trials at most, the first of them an evaluation.
_TRIALS = 8
_FEWEST_CHECKS = 256

Keep = Callable[[loop.State], None]


def with_fewer_checks(problem: Problem) -> Problem:
    """With a few unseen draws, for an epoch takes as long as there are draws; those
    that were matched to a structure in more dimensions stay as they are."""
    draws = problem.draws
    count, dim = draws.check.shape
    half = max(_FEWEST_CHECKS // 2, dim + 1)
    if count // 2 <= half:
        return problem
    kept = antithetic(np.asarray(draws.check[:half], float))
    check = jnp.asarray(kept, draws.check.dtype)
    return problem._replace(draws=replace(draws, check=check))


# -- the first pass --------------------------------------------------------------------


def first_pass(
    problem: Problem, sums: Sums, state: loop.State, keep: Keep, final: bool
) -> float:
    """Sequential updating: the first batch is fitted, each of the others absorbed.

    Args:
        problem: of the fit; its data are those of any batch.
        sums: of ℓ over the batches.
        state: where the fit to the first batch begins.
        keep: is told each new state.
        final: no epoch follows. Else fewer steps will do, and batches with fewer rows
            than the first, which take another compilation, are left to the epochs.

    Returns:
        The sum of the batches' log evidences, each given those before.

    Raises:
        StreamError: a batch cannot be used.
    """
    target, data, _, _, settings, _ = problem
    goal = settings.tolerance if final else settings.loose_tolerance
    rows, total = 0, 0.0
    for read in sums.batches:
        if read.rows < rows and not final:
            continue
        if read.number:
            _check(target, read, state.q)
            prior = read.data._replace(prior=state.q, power=data.power)
            one = Sums(target, OneBatch(read), prior)
            fresh = renewed(state, np.inf)  # one batch may tell more than the prior
            state = _absorbed(problem, one, fresh, goal)
        else:
            rows = read.rows
            one = Sums(target, OneBatch(read), data)
            state = converge(problem, one, state, lambda _: None)[0]
        if bool(state.fresh):
            raise _undefined(read)
        total += float(state.trace.elbo[max(int(state.iteration) - 1, 0)])
        keep(state)
        sums.shown(read.rows)
    return total


@jax.jit
def renewed(state: loop.State, radius: float) -> loop.State:
    """The same q, to be evaluated anew: the state at which another fit begins."""
    zero, false = jnp.zeros_like(state.iteration), jnp.zeros_like(state.fresh)
    return replace(
        state,
        memory=state.memory.forget(),
        rho=jnp.ones_like(state.rho),
        radius=jnp.full_like(state.radius, radius),
        level=zero,
        fresh=~false,
        checked=false,
        gap=jnp.full_like(state.gap, jnp.inf),
        tries=zero,
        idle=zero,
        status=zero,
        iteration=zero,
        gradients=zero,
        values=zero,
        rejected=zero,
    )


def _absorbed(
    problem: Problem, one: Sums, state: loop.State, goal: float
) -> loop.State:
    """`ngvi.bayes.updating.absorb`, of the programs that the epochs use."""
    for trial in range(_TRIALS):
        state = _tried(problem, one, state, False)[0]
        if trial and not int(state.tries) and float(state.length) <= goal:
            break
    return state


def _undefined(read: Numbered) -> StreamError:
    undefined = undefined_arguments(read.args, read.kwargs)
    text = f"Batch {read.number}: its log likelihood is not finite.{undefined}"
    return StreamError(text, read.number)


@partial(jax.jit, static_argnums=0)
def faults_of(
    target: ModelTarget, data: Data, z: Float[Array, "d"]
) -> dict[str, tuple[Array, Array]]:
    """By observed site: how many values are undefined, and outside its support."""
    args, kwargs = target.arguments.join(data)
    values = target.constrain(data, z)
    model = handlers.seed(handlers.substitute(target.program, data=values), 0)
    trace = handlers.trace(model).get_trace(*args, **kwargs)
    found = {name: faults(site) for name, site in trace.items() if is_observed(site)}
    return jax.tree.map(jnp.sum, found)


def _check(target: Target, read: Numbered, q: Gaussian) -> None:
    """Refuse observations that no fit could use."""
    if not isinstance(target, ModelTarget):
        return
    for name, (bad, outside) in faults_of(target, read.data, q.mean).items():
        if words := faults_in_words(name, int(bad), int(outside)):
            raise StreamError(f"Batch {read.number}: {words}.", read.number)


# -- epochs ----------------------------------------------------------------------------

_propose = jax.jit(propose, static_argnums=1)
_decide = jax.jit(decide, static_argnums=4)
_compare = jax.jit(loop.compare, static_argnums=3)
_at_rest = jax.jit(loop.at_rest, static_argnums=1)


def _tried(
    problem: Problem, sums: Sums, state: loop.State, also: bool
) -> tuple[loop.State, Array | None]:
    """A trial step: an epoch; with `also` ℓ at the unseen draws where it was tried."""
    _, _, _, plan, settings, draws = problem
    proposal = _propose(state, settings)
    q, level = proposal.step.q, int(state.level)
    estimator = plan.estimator()
    assert isinstance(estimator, FirstOrder)
    estimate, unseen = sums.estimate(estimator, q, draws, level, also)
    return _decide(state, proposal, estimate, draws, settings), unseen


def converge(
    problem: Problem,
    sums: Sums,
    state: loop.State,
    keep: Keep,
    between: Keep = lambda state: None,
) -> tuple[loop.State, str | None]:
    """Epochs, each a trial step, until the fit stops.

    Args:
        problem: of the fit.
        sums: ℓ.
        state: where to begin, not evaluated yet.
        keep: is told each new state.
        between: is told the state before each trial, from which all goes on.

    Returns:
        The last state, and why it stopped where its own status does not tell.
    """
    settings, draws = problem.settings, problem.draws
    while int(state.status) == loop.RUNNING:
        between(state)
        if sums.batches.ended:
            return state, EPOCHS_USED
        if int(state.iteration) >= settings.max_iterations:
            return state, loop.STOP_REASONS[loop.ITERATIONS_EXHAUSTED]
        arriving = not bool(state.fresh) and float(state.length) < _ARRIVING
        state, unseen = _tried(problem, sums, state, arriving)
        keep(state)
        if bool(state.fresh):
            culprit = sums.not_finite(state.q.mean)
            if culprit is not None:
                raise _undefined(culprit)
        if not bool(_at_rest(state, settings)):
            continue
        accepted = not int(state.tries)
        if unseen is None or not accepted:
            if accepted and float(state.length) > settings.tolerance:
                continue  # the next trial reads them along, a little nearer
            if sums.batches.ended:
                return state, EPOCHS_USED
            unseen = sums.values(placed(state.q, draws.check))
        state = _compare(state, unseen, draws, settings)
        keep(state)
    return state, None
