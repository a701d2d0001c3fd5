"""What no fit could use, found before it and told in words that name the site."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ngvi.bayes.model_trace import Trace, is_observed


def _count(bad: Any, value: Any) -> str:
    return f"{int(jnp.sum(bad))} of {np.size(value)} values"


def faults(site: Mapping[str, Any]) -> tuple[Array, Array]:
    """Which values of an observed site are NaN or infinite, and which are outside the
    distribution's support."""
    value = jnp.asarray(site["value"])
    mask = getattr(site["fn"], "_mask", None)
    used = jnp.ones(value.shape, bool)
    if mask is not None and not isinstance(mask, bool):
        event = (1,) * site["fn"].event_dim
        used = jnp.broadcast_to(jnp.reshape(mask, jnp.shape(mask) + event), value.shape)
    bad = ~jnp.isfinite(value) & used
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        support = site["fn"].support
        checked = mask is None and support is not None
        outside = ~support(value) if checked else jnp.asarray(False)
    return bad, outside


def faults_in_words(name: str, bad: int, outside: int) -> str:
    """How many values of an observed site no fit could use; empty if none."""
    what = "that are NaN or infinite" if bad else "outside its support"
    count = bad or outside
    return f"the observed site '{name}' has {count} values {what}" if count else ""


def check_observed(trace: Trace) -> None:
    """Refuse observed values that no fit could use.

    Raises:
        ValueError: names the site, and says how many values are NaN, infinite, or
            outside the distribution's support; or that its shape is not that of its
            distribution.
    """
    for name, site in trace.items():
        if not is_observed(site):
            continue
        shapes = np.shape(site["value"]), site["fn"].shape()
        try:
            np.broadcast_shapes(*shapes)
        except ValueError:
            raise ValueError(
                f"Shapes {shapes[0]} and {shapes[1]} do not agree at {_lengths(site)}"
            ) from None
        bad, outside = faults(site)
        if bool(bad.any()):
            raise ValueError(
                f"The observed site '{name}' holds NaN or infinity in "
                f"{_count(bad, bad)}. Drop or impute them, or mask them with "
                "numpyro.handlers.mask."
            )
        if bool(outside.any()):
            raise ValueError(
                f"The observed site '{name}' has {_count(outside, outside)} outside "
                f"the support of its distribution, {type(site['fn']).__name__} on "
                f"{site['fn'].support}."
            )


def where_it_failed(error: Exception) -> str:
    """The site at which NumPyro found shapes that do not fit, and its plates."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        message = frame.f_locals.get("msg")
        if not isinstance(message, dict) or message.get("type") != "sample":
            continue
        return f" It was at {_lengths(message)}"
    return ""


def _lengths(site: Mapping[str, Any]) -> str:
    """What is to agree at a site, in words."""
    words = [f"site '{site['name']}'"]
    if site["is_observed"]:
        words.append(f"its observations have the shape {np.shape(site['value'])}")
    for plate in site["cond_indep_stack"]:
        words.append(f"its plate '{plate.name}' has {plate.size} rows")
    return f"{', '.join(words)}: are all data of one length?"


def named_arguments(args: tuple, kwargs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The values among a model's arguments, each after words for where it is: "argument
    'x'", or "argument number 0" by position."""
    for path, leaf in jax.tree_util.tree_flatten_with_path((args, kwargs))[0]:
        name = jax.tree_util.keystr(path[1:], simple=True, separator=".")
        yield f"argument '{name}'" if path[0].idx else f"argument number {name}", leaf


def undefined_arguments(args: tuple, kwargs: dict[str, Any]) -> str:
    """Which array arguments hold NaN or infinity, as a sentence; empty if none."""
    found = []
    for name, leaf in named_arguments(args, kwargs):
        array = isinstance(leaf, np.ndarray | jax.Array)
        if not array or not jnp.issubdtype(leaf.dtype, jnp.floating):
            continue
        bad = ~np.isfinite(np.asarray(leaf))
        if bad.any():
            found.append(f"{name} ({_count(bad, leaf)})")
    return f" NaN or infinity stands in {', '.join(found)}." if found else ""


def blame(trace: Trace) -> str:
    """Which site makes the log density infinite or undefined at the start, in words."""
    culprits = []
    for name, site in trace.items():
        if site["type"] != "sample":
            continue
        log_prob = site["fn"].log_prob(site["value"])
        if not bool(jnp.isfinite(log_prob).all()):
            culprits.append(f"'{name}' (log density {float(jnp.sum(log_prob))})")
    if culprits:
        return f"The cause is site {', '.join(culprits)}."
    return (
        "Every site's own density is finite there; its gradient or a transform is not."
    )
