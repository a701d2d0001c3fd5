"""Which correlations a fit keeps: read off the model, told in words and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from jaxtyping import Array, Float

from ngvi.bayes.model_trace import Trace, count_observations
from ngvi.bayes.numpyro_model import ModelTarget
from ngvi.bayes.plan import (
    LARGEST_FULL,
    SMALLEST_RANK,
    Chained,
    Full,
    Independent,
    LowRank,
    Plan,
    Structured,
)
from ngvi.bayes.plates import Group, Plates, meeting, read_plates
from ngvi.bayes.steps import NoChain, Steps, find_steps
from ngvi.bayes.target import Data, Target
from ngvi.linalg import Tree

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Covariance = Literal["auto", "full", "structured", "low-rank", "diagonal"]

# Below this size a full covariance is as quick.
_SMALLEST_STRUCTURED = 200
# A border as wide as this may have a chain in it.
_WIDE_BORDER = 32
_SPARSE = 0.25
"""The part of a full matrix that one with structure may fill, to be worth it."""


@dataclass(frozen=True)
class Structure:
    """Which coordinates of a posterior may be correlated given all others.

    Printing it says so in words; `plot` shows the precision's pattern.
    """

    covariance: str
    dim: int
    plates: Plates | None = None
    """The border and the blocks, where the precision has them."""
    steps: Steps | None = None
    """The border and the chain, where the precision has one."""
    rank: int | None = None
    """Of a low-rank precision."""
    notes: tuple[str, ...] = ()
    """What stood in the way of more structure."""

    @property
    def tree(self) -> Tree | None:
        """The levels of blocks."""
        return None if self.plates is None else self.plates.tree()

    def __str__(self) -> str:
        lines = [f"{self.covariance} covariance over {self.dim:,d} coordinates"]
        numbers = 0
        if self.plates is not None:
            if self.plates.border.pieces:
                border = self.plates.border
                lines.append(_border(border.size, border.sites))
            for group in self.plates.groups:
                lines.append(_words(group, self.plates.parent(group)))
            numbers = self.plates.tree().numbers
        if self.steps is not None:
            chain = self.steps.chain
            if chain.border:
                size = sum(piece.size for piece in chain.border)
                lines.append(_border(size, self.steps.border))
            lines.append(str(self.steps))
            numbers = chain.numbers
        if self.rank is not None:
            lines.append(f"precision: a diagonal and {self.rank} directions")
            numbers = self.dim * (self.rank + 1)
        if numbers:
            part = numbers / self.dim**2
            lines.append(f"the precision fills {part:.2g} of a full matrix")
        return "\n".join([*lines, *self.notes])

    __repr__ = __str__

    def plot(self, ax: Axes | None = None) -> Any:
        """A picture of the precision's pattern, border last; returns the figure."""
        from ngvi.bayes.structure_plot import plot

        return plot(self, ax)


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:6])
    return shown if len(names) <= 6 else f"{shown} and {len(names) - 6} more"


def _border(size: int, sites: tuple[str, ...]) -> str:
    return f"border: {size:,d} ({_listed(sites)})"


def _words(group: Group, parent: Group | None) -> str:
    count = group.pieces[0].count
    names = f"plate {group.plates[0]}"
    if len(group.plates) > 1:
        names = f"plates {' × '.join(group.plates)}"
    on = "" if parent is None else f", on those of {' × '.join(parent.plates)}"
    size = group.size // count
    return f"{names}: {count:,d} blocks of {size} ({_listed(group.sites)}){on}"


def choose(
    covariance: str,
    target: Target,
    data: Data,
    point: Float[Array, "d"],
    trace: Trace | None,
    in_batches: bool = False,
    rank: int | None = None,
) -> tuple[Plan, Structure]:
    """How to fit a target, and what of it to tell.

    Args:
        covariance: "auto", "full", "structured", "low-rank" or "diagonal".
        target: what is fitted.
        data: its arrays.
        point: where the fit starts.
        trace: the recorded run of a NumPyro model, else None.
        in_batches: the data are not held at once.
        rank: of "low-rank"; None to let it grow while that gains.

    Raises:
        ValueError: an unknown name, a structure was asked for that the model does not
            have or that data in batches cannot have, or a rank that is none.
    """
    if covariance not in get_args(Covariance):
        raise ValueError(
            "covariance must be 'auto', 'full', 'structured', 'low-rank' or "
            f"'diagonal', not {covariance!r}."
        )
    dim = target.dim
    if rank is not None:
        _check_rank(covariance, rank, dim)
    if covariance == "low-rank" and in_batches:
        raise ValueError(
            "covariance='low-rank' is for data in memory: fit a stream or a subsampled "
            "plate with 'full' or 'diagonal'."
        )
    notes: tuple[str, ...] = ()
    wanted = covariance == "structured"
    if wanted or (covariance == "auto" and dim > _SMALLEST_STRUCTURED):
        try:
            kept, structure = _structured(target, data, point, trace, in_batches)
        except _Unstructured as reason:
            if wanted:
                raise ValueError(
                    f"covariance='structured' is not possible: {reason}. Fit with "
                    "covariance='full', or 'diagonal' if that is too large."
                ) from reason
            notes = (f"no structure: {reason}",)
        else:
            if wanted or _numbers(kept) < _SPARSE * dim**2:
                return kept, structure
            what = "the border is most of the coordinates"
            notes = (*structure.notes, f"no structure: {what}")
    if rank == dim:
        notes = (*notes, f"{rank} directions are all there are: no low rank")
    all_correlations = covariance == "full" or rank == dim
    if all_correlations or (covariance == "auto" and dim <= LARGEST_FULL):
        return Full(dim), Structure("full", dim, notes=notes)
    if covariance == "diagonal" or in_batches:
        return Independent(dim), Structure("diagonal", dim, notes=notes)
    plan = LowRank(dim, rank or min(SMALLEST_RANK, dim), growing=rank is None)
    return plan, Structure("low-rank", dim, rank=plan.rank, notes=notes)


def _check_rank(covariance: str, rank: int, dim: int) -> None:
    if covariance != "low-rank":
        raise ValueError(
            f"rank={rank} is for covariance='low-rank', not {covariance!r}."
        )
    if not 1 <= rank <= dim:
        raise ValueError(
            f"rank must be from 1 to the {dim} dimensions of the model, got {rank}."
        )


class _Unstructured(Exception):
    """Why a model has no structure to use; the text completes a sentence."""


def _numbers(plan: Structured | Chained) -> int:
    return plan.tree.numbers if isinstance(plan, Structured) else plan.chain.numbers


def _structured(
    target: Target,
    data: Data,
    point: Float[Array, "d"],
    trace: Trace | None,
    in_batches: bool,
) -> tuple[Structured | Chained, Structure]:
    """The smaller of what plates and what a chain make of the model; no chain where a
    batch does not hold all of its steps."""
    if not isinstance(target, ModelTarget) or trace is None:
        raise _Unstructured("a plain log density has no plates to read it off")
    observations = count_observations(trace)
    found: tuple[Structured | Chained, Structure] | None = None
    reasons = []
    try:
        plates, notes = _find(target, data, point, trace)
    except _Unstructured as reason:
        reasons.append(str(reason))
    else:
        structure = Structure("structured", target.dim, plates, notes=notes)
        found = Structured(plates.tree(), observations), structure
        if plates.border.size <= _WIDE_BORDER or in_batches:
            return found
    if in_batches:
        raise _Unstructured("; ".join(reasons))
    try:
        steps = find_steps(target, data, point)
    except (NoChain, ValueError) as reason:
        reasons.append(str(reason))
    else:
        plan = Chained(steps.chain, observations, _sequential(trace))
        if found is None or _numbers(plan) < _numbers(found[0]):
            return plan, Structure("structured", target.dim, steps=steps)
    if found is None:
        raise _Unstructured("; ".join(dict.fromkeys(reasons)))
    return found


def _find(
    target: ModelTarget,
    data: Data,
    point: Float[Array, "d"],
    trace: Trace,
) -> tuple[Plates, tuple[str, ...]]:
    """The largest groups of plates that the density keeps to, and what did not fit."""
    plates = read_plates(target, trace)
    if not plates.groups:
        raise _Unstructured("no latent site is inside a plate")
    try:
        pairs = meeting(target, data, point, plates)
    except ValueError as error:
        raise _Unstructured(str(error)) from error
    notes: list[str] = []
    while True:
        kept = plates.groups
        wrong = [(a, b) for a, b in pairs if a in kept and b in kept]
        wrong += plates.conflicts()
        if not wrong:
            return plates, tuple(notes)
        # What meets its own kind cannot stay; of two the smaller one goes.
        one, other = min(wrong, key=lambda pair: pair[0] != pair[1])
        smaller = min(one, other, key=lambda group: group.size)
        plates = plates.without(smaller)
        notes.append(_moved(smaller, other if smaller == one else one))
        if not plates.groups:
            raise _Unstructured("; ".join(notes))


def _moved(group: Group, other: Group) -> str:
    names = " × ".join(group.plates)
    if group == other:
        return f"the blocks of plate {names} depend on each other"
    return f"plate {names} meets plate {' × '.join(other.plates)}: it is in the border"


def _sequential(trace: Trace) -> bool:
    return any(site["type"] == "control_flow" for site in trace.values())
