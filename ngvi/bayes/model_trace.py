"""A recorded run of a NumPyro model, and what it tells of the model's sites."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions import constraints

Trace = Mapping[str, Mapping[str, Any]]
"""The run: by name what NumPyro's handlers see of each site, in the program's order."""


def trace_model(
    model: Callable[..., Any],
    args: tuple,
    kwargs: dict[str, Any],
    init_strategy: Callable[..., Any],
) -> Trace:
    """One run of the model at its starting values."""
    if not isinstance(init_strategy, partial):
        init_strategy = init_strategy()
    seeded = handlers.seed(model, jax.random.key(0))
    started = handlers.substitute(seeded, substitute_fn=init_strategy)
    return handlers.trace(started).get_trace(*args, **kwargs)


def is_latent(site: Mapping[str, Any]) -> bool:
    """A sample site without an observed value."""
    return site["type"] == "sample" and not site["is_observed"]


def is_observed(site: Mapping[str, Any]) -> bool:
    """An observed sample site; `numpyro.factor` is none."""
    return (
        site["type"] == "sample"
        and site["is_observed"]
        and not isinstance(site["fn"], dist.Unit)
    )


def observed_sites(trace: Trace) -> tuple[str, ...]:
    """Names of the observed sites."""
    return tuple(name for name, site in trace.items() if is_observed(site))


def count_observations(trace: Trace) -> int:
    """Observed numbers in all."""
    return sum(np.size(trace[name]["value"]) for name in observed_sites(trace))


def base_dist(fn: dist.Distribution) -> dist.Distribution:
    """A distribution without what gives it other shapes, or a mask."""
    while isinstance(
        fn, dist.Independent | dist.ExpandedDistribution | dist.MaskedDistribution
    ):
        fn = fn.base_dist
    return fn


def base_support(support: Any) -> Any:
    """Of one entry, or of one value of a joint distribution."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def _event_dim(site: Mapping[str, Any]) -> int:
    """Of a deterministic value, which does not say: the fewest axes on the right that
    leave an axis of the right length to every plate."""
    shape, frames = np.shape(site["value"]), site["cond_indep_stack"]
    for event in range(len(shape)):
        batch = shape[: len(shape) - event]
        if all(-f.dim <= len(batch) and batch[f.dim] == f.size for f in frames):
            return event
    return 0


def axis_names(site: Mapping[str, Any]) -> tuple[str | None, ...]:
    """The plate of each axis of a site's value, from the right; event axes have none,
    unless named by `infer={"event_dims": [...]}`."""
    ndim = np.ndim(site["value"])
    event = site["fn"].event_dim if site["type"] == "sample" else _event_dim(site)
    named: list[str | None] = [None] * ndim
    for frame in site["cond_indep_stack"]:
        axis = ndim - event + frame.dim
        if 0 <= axis < ndim and np.shape(site["value"])[axis] == frame.size:
            named[axis] = frame.name
    events = site.get("infer", {}).get("event_dims", ())
    for axis, name in zip(range(ndim - event, ndim), events, strict=False):
        named[axis] = name
    return tuple(named)
