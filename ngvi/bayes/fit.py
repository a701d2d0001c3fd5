"""`ngvi.fit`: from a model to a posterior, with no setting to touch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, Literal, get_args

from jax.sharding import Mesh

from ngvi.bayes.diagnostics import INTERRUPTED
from ngvi.bayes.load import LoadedPosterior
from ngvi.bayes.mixed import mixed
from ngvi.bayes.mixture_fit import check_size
from ngvi.bayes.numpyro_model import model_target
from ngvi.bayes.posterior import Posterior
from ngvi.bayes.reader import Reader
from ngvi.bayes.run import run
from ngvi.bayes.site_families import MEAN_FIELD, Choice
from ngvi.bayes.stream import Stream
from ngvi.bayes.structure import Covariance
from ngvi.bayes.target import Target, function_target
from ngvi.bayes.updating import weighed
from ngvi.executors import Executor, Workers
from ngvi.families import Gaussian
from ngvi.mirror import loop
from ngvi.names import name_of

Family = Literal["gaussian", "mixture", "mean-field"]
SiteFamilies = Mapping[str | tuple[str, ...], Choice]
"""Families by site, or by several sites joined in one block."""


def fit(
    model: Callable[..., Any],
    *args: Any,
    family: Family | SiteFamilies = "gaussian",
    covariance: Covariance = "auto",
    rank: int | None = None,
    seed: int = 0,
    init: Any = None,
    gradients: bool = True,
    executor: Executor | Workers | None = None,
    timeout: float | None = None,
    init_strategy: Callable[..., Any] | None = None,
    prior: Posterior | LoadedPosterior | Gaussian | None = None,
    forgetting: float = 0.0,
    likelihood_power: float = 1.0,
    progress: bool | None = None,
    settings: loop.Settings | None = None,
    checkpoint: str | PathLike[str] | None = None,
    every: int | None = None,
    mesh: Mesh | None = None,
    **kwargs: Any,
) -> Posterior:
    """Fit the best Gaussian, on the unconstrained space, to a model's posterior.

    Minimises KL(q ‖ posterior) over Gaussians q by natural-gradient steps until the
    natural gradient vanishes; no setting needs tuning, and nothing depends on the units
    of the data. The answer comes with a verdict on how far it can be trusted.

    Args:
        model: a NumPyro model, called as `model(*args, **kwargs)`; or, with `init`, a
            log density called as `model(params, *args, **kwargs)` → scalar.
        *args: the model's arguments. Arrays may change between fits without a new
            compilation; other values are part of the compiled program. Data that come
            in batches are a `ngvi.Stream`, first of all.
        family: of q: "gaussian", on the unconstrained space; "mixture", of Gaussians
            with full covariances, for a posterior with several modes or a strong skew;
            "mean-field", independent families on the sites' own supports; or a dict
            that says which for some sites, see `ngvi.bayes.site_families`.
        covariance: of the Gaussian, which a mixture begins with: "full"; "structured",
            which keeps the correlations that the model's plates leave or its steps in
            time, at a cost linear in their number; "low-rank", a diagonal precision and
            a few directions; "diagonal"; or "auto": structured where the model has the
            structure and more than 200 dimensions, else full up to 1,000 dimensions and
            low-rank beyond, but diagonal where data come in batches.
            `posterior.structure` tells.
        rank: of "low-rank": how many directions. By default 8, and twice as many while
            that gains.
        seed: of the base draws. The same seed gives the same answer.
        init: for a log density: a pytree of numbers where the fit starts, which also
            says what `params` looks like.
        gradients: False for a log density that JAX cannot differentiate or trace, any
            Python function of NumPy arrays, see `ngvi.bayes.black_box`.
        executor: with gradients=False, evaluates points side by side: anything with
            `submit`, as of `concurrent.futures` or a dask client, or
            `ngvi.executors.Workers`, processes that are replaced when they die or hang.
            The posterior evaluates its draws there too.
        timeout: seconds for one evaluation on the executor. What fails or takes longer
            counts as of density zero, and is warned of.
        init_strategy: for a NumPyro model: where the fit starts, as in
            `numpyro.infer`; by default the center of the prior.
        prior: an earlier posterior, whose Gaussian q takes the place of the priors of
            all latent sites: what is fitted is q(z) × likelihood of these data. With
            `init` the function is then the log likelihood alone.
        forgetting: f, how much of what the prior has learned from data is forgotten:
            q^(1−f) p₀^f in place of q, with p₀ the model's own prior. If q has learned
            by a likelihood L, q = p₀ L, this is p₀ L^(1−f): p₀ counts once. It is not
            normalised; the ELBO lacks its log normaliser.
        likelihood_power: β, a power posterior: prior × likelihood^β. The likelihood is
            all that is observed or a `numpyro.factor`.
        progress: show a progress line on stderr; by default when it is a terminal.
        settings: tolerances and limits, see `ngvi.mirror.loop.Settings`.
        checkpoint: a folder of its own, to write to while the fit runs, and to go on
            from after a crash: to the same answer, to the last bit, as without it. The
            model and data must be the same; see `ngvi.checkpoints.Checkpoints`.
        every: trial steps between checkpoints, more if those would take more than a
            tenth of the time; by default 25, and 1 for data in batches, where a trial
            is a pass over them, and with gradients=False.
        mesh: of devices. The rows of the data (those of the model's largest plate) are
            shared out over its first axis, the draws over its second if it has one; see
            `ngvi.bayes.sharding`. Arrays that are sharded already, as over the
            processes of `jax.distributed`, need no mesh. With it the blocks of a
            structured covariance are shared out too (`ngvi.bayes.shares`), if rows are
            in the order of their blocks and as many for each device; else
            `posterior.structure` says why not.
        **kwargs: the model's keyword arguments; one that has the name of an option
            above goes by position.

    Returns:
        The posterior; printing it shows a table and the verdict. Ctrl-C returns the
        best state so far, marked as interrupted.

    Raises:
        ValueError: a model with nothing to infer or with unusable observations, a
            prior of other sites, a family that does not fit its site, or a log density
            that is not finite at the start; the message names the site. Checkpoints
            (`CheckpointError`) of another fit, or in use by another run.
        StreamError: a batch of a stream is unusable; it is named, and the error has the
            fit so far.

    Example:
        >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist, ngvi
        >>> def model(y):
        ...     mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
        ...     numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> posterior = ngvi.fit(model, jnp.array([1.0, 2.0, 3.0]))
        >>> round(float(posterior.mean["mu"]), 2)
        1.99

    Source: Khan and Rue (2023), The Bayesian learning rule; Lin, Schmidt and Khan
    (2020), Handling the positive-definite constraint in the Bayesian learning rule.
    """
    started = time.perf_counter()
    in_blocks = isinstance(family, Mapping)
    if not in_blocks and family not in get_args(Family):
        known = ", ".join(f'"{name}"' for name in get_args(Family))
        raise ValueError(f"family must be one of {known}, not {family!r}.")
    only_gaussian = {
        "covariance": covariance != "auto",
        "rank": rank is not None,
        "prior": prior is not None,
        "forgetting": forgetting != 0,
        "likelihood_power": likelihood_power != 1,
        "checkpoint": checkpoint is not None,
        "mesh": mesh is not None,
    }
    if in_blocks or family == MEAN_FIELD:
        from ngvi.bayes.fit_mean_field import fit_mean_field

        others = {"init": init is not None, "checkpoint": False}
        _refuse("a mean field", args, only_gaussian | others)
        return fit_mean_field(
            model,
            args,
            kwargs,
            family=family,
            seed=seed,
            init_strategy=init_strategy,
            progress=progress,
            settings=settings,
            checkpoint=checkpoint,
            every=every,
        )
    if not gradients:
        from ngvi.bayes.black_box import fit_black_box

        others = {"family": family != "gaussian", "checkpoint": False}
        _refuse("gradients=False", args, only_gaussian | others)
        return fit_black_box(
            model,
            args,
            kwargs,
            init=init,
            seed=seed,
            progress=progress,
            settings=settings,
            executor=executor,
            timeout=timeout,
            checkpoint=checkpoint,
            every=every,
        )
    if executor is not None:
        raise ValueError(
            "An executor is for log densities that run on the host: gradients=False. "
            "Several devices are a mesh."
        )
    reader = None
    if args and isinstance(args[0], Stream):
        reader = Reader(args[0], args[1:], kwargs)
        first = reader.first()
        args, kwargs = first.args, first.kwargs
    trace = None
    target: Target
    if init is None:
        target, data, point, trace = model_target(model, args, kwargs, init_strategy)
    else:
        target, data, point = function_target(model, init, args, kwargs)
    if reader is not None and len(data.arrays) < len(first.data.arrays):
        raise ValueError(
            "The model computes a shape or a branch from the values of an array, so "
            "that every batch would be a program of its own. Give such numbers as "
            "plain ints after the stream: ngvi.fit(model, stream, 250)."
        )
    if family == "mixture":
        if reader is not None:
            raise TypeError(
                "A mixture needs the data in memory: give them without a stream."
            )
        check_size(target.dim)
    data = weighed(data, target, trace, prior, forgetting, likelihood_power)
    if data.prior is not None and init_strategy is None:
        point = data.prior.mean
    posterior = run(
        target,
        data,
        point,
        trace,
        name=name_of(model),
        covariance=covariance,
        rank=rank,
        seed=seed,
        settings=settings,
        reader=reader,
        progress=progress,
        started=started,
        checkpoint=checkpoint,
        every=every,
        mesh=mesh,
    )
    interrupted = posterior.record.diagnostics.stop_reason == INTERRUPTED
    if family == "mixture" and not interrupted:
        return mixed(posterior, progress=progress, checkpoint=checkpoint)
    return posterior


def _refuse(what: str, args: tuple, given: dict[str, bool]) -> None:
    """Options that mean nothing to a kind of fit.

    Raises:
        ValueError: one was given, or data that come in batches.
    """
    names = [f"{name}=" for name, there in given.items() if there]
    if args and isinstance(args[0], Stream):
        names.append("a Stream")
    if names:
        raise ValueError(f"With {what} there can be no {' and no '.join(names)}.")
