"""NumPyro's `subsample_size`: the rows of a plate set from outside.

NumPyro draws b of a plate's N indices at random and multiplies by N/b what is inside,
an unbiased estimate of the sum over all rows. Here batches of indices cover the plate:
the sum over them is the sum itself, so each row counts once and the scale is undone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int
from numpyro.primitives import Messenger

from ngvi.bayes.model_trace import Trace
from ngvi.bayes.reader import Numbered
from ngvi.bayes.target import Data


class Subsampled(NamedTuple):
    """A plate that the model subsamples."""

    name: str
    size: int
    """N."""
    batch: int
    """b."""


class _Covering(Messenger):
    """Gives each of the plates its rows, and each row the weight 1."""

    def __init__(
        self,
        fn: Callable[..., Any],
        plates: tuple[Subsampled, ...],
        rows: Mapping[str, Int[Array, "b"]] | None,
    ) -> None:
        super().__init__(fn)
        self.names = {plate.name for plate in plates}
        self.rows = dict(rows or {})
        self.sizes: dict[str, int] = {}

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "plate" and msg["name"] in self.names:
            size = self.sizes[msg["name"]] = msg["args"][0]
            rows = self.rows.get(msg["name"])
            msg["value"] = jnp.arange(size) if rows is None else rows
            msg["args"] = (size, msg["value"].size)
        elif msg["type"] == "sample" and msg["scale"] is not None:
            for frame in msg["cond_indep_stack"]:
                if frame.name in self.sizes:
                    msg["scale"] *= frame.size / self.sizes[frame.name]


def covering(
    model: Callable[..., Any],
    plates: tuple[Subsampled, ...],
    rows: Mapping[str, Int[Array, "b"]] | None,
) -> Callable[..., Any]:
    """The model on given rows of its subsampled plates, each row counted once.

    Args:
        model: a NumPyro model.
        plates: those that it subsamples.
        rows: indices by plate; those left out have all of theirs.
    """
    return _Covering(model, plates, rows) if plates else model


def subsampled_plates(trace: Trace) -> tuple[Subsampled, ...]:
    """The plates of a recorded run that have fewer indices than their size.

    Raises:
        ValueError: a subsample is larger than its plate; the message names the plate.
    """
    found = []
    for name, site in trace.items():
        if site["type"] != "plate":
            continue
        size, batch = site["args"]
        if batch is None or batch == size:
            continue
        if batch > size:
            raise ValueError(
                f"The plate '{name}' asks for a subsample of {batch} of {size} rows: "
                "subsample_size must not be larger than the plate."
            )
        found.append(Subsampled(name, size, batch))
    return tuple(found)


def subsampled_axes(
    site: Mapping[str, Any], plates: tuple[Subsampled, ...]
) -> tuple[tuple[str, int], ...]:
    """The subsampled plates that a latent site is in, each with the axis of the
    unconstrained value, counted from the left."""
    batch = np.ndim(site["value"]) - site["fn"].event_dim
    names = {plate.name for plate in plates}
    return tuple(
        (frame.name, batch + frame.dim)
        for frame in site["cond_indep_stack"]
        if frame.name in names
    )


def outside_of(trace: Trace, plates: tuple[Subsampled, ...]) -> tuple[str, ...]:
    """The observed sites that are in no subsampled plate, if there are such plates."""
    names = {plate.name for plate in plates}
    return tuple(
        name
        for name, site in trace.items()
        if plates
        and site["type"] == "sample"
        and site["is_observed"]
        and not names & {frame.name for frame in site["cond_indep_stack"]}
    )


class RowReader:
    """Batches of the rows of a subsampled plate, epoch after epoch; see
    `ngvi.bayes.reader.Reader`."""

    ended = False

    def __init__(self, plates: tuple[Subsampled, ...], data: Data, seed: int) -> None:
        if len(plates) > 1:
            listed = ", ".join(f"'{plate.name}'" for plate in plates)
            raise ValueError(
                f"The plates {listed} are subsampled: batches can be taken of one "
                "only. Drop subsample_size from the others."
            )
        self.plate, self.data, self.seed = plates[0], data, seed
        self.epoch = 0
        self.rows = self.plate.size

    def position(self) -> dict[str, int]:
        """How far it has come, to `go_on_from` later."""
        return {"epoch": self.epoch}

    def go_on_from(self, position: dict[str, int]) -> None:
        """Be where another reader was between two epochs."""
        self.epoch = position["epoch"]

    def __iter__(self) -> Iterator[Numbered]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.plate.size)
        for number, start in enumerate(range(0, order.size, self.plate.batch)):
            rows = order[start : start + self.plate.batch]
            at = {self.plate.name: jnp.asarray(rows)}
            yield Numbered(number, rows.size, (), {}, self.data._replace(rows=at))
        self.epoch += 1
