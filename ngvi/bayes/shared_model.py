"""A model as each of several devices runs it: with its share of a plate and its data.

Its share are its part of the plate's blocks, of the arrays that are as long as the
plate or as the rows, and of indices into the plate, which count from its first block.
Sites that are the same on all devices, as the priors of the border, count 1/P on each.

That a model can be shared out so is measured: at a random point the log density of each
site must be the sum of those of the shares, or that of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.infer.util import compute_log_probs
from numpyro.primitives import Messenger

from ngvi.bayes.model_trace import Trace, is_latent, is_observed
from ngvi.bayes.numpyro_model import ModelTarget
from ngvi.bayes.plan import Plan, Structured
from ngvi.bayes.plates import Plates
from ngvi.bayes.shares import Shared
from ngvi.bayes.target import Data, Target
from ngvi.linalg import Tree


class Indivisible(Exception):
    """Why blocks cannot be shared out; the text completes a sentence."""


class _Share(Messenger):
    """Gives plates their share of indices, and what all devices have its weight."""

    def __init__(self, model: ShareOfModel) -> None:
        super().__init__(model.model)
        self.shared = model
        self.sizes: dict[str, int] = {}

    def process_message(self, msg: dict[str, Any]) -> None:
        devices = self.shared.devices
        if msg["type"] == "plate":
            # A plate as long as an array has its share of it already.
            size = msg["args"][0]
            if (msg["name"], size) in self.shared.plates:
                self.sizes[msg["name"]] = size
                msg["value"] = jnp.arange(size // devices)
                msg["args"] = (size, size // devices)
        elif msg["type"] == "sample":
            scale = 1.0 if msg["scale"] is None else msg["scale"]
            for frame in msg["cond_indep_stack"]:
                if frame.name in self.sizes:
                    # A plate with fewer indices than its size is taken for a sample.
                    scale *= frame.size / self.sizes[frame.name]
            if msg["name"] in self.shared.common:
                scale /= devices
            msg["scale"] = scale


@dataclass(frozen=True)
class ShareOfModel:
    """A model as one of the devices runs it."""

    model: Callable[..., Any]
    plates: tuple[tuple[str, int], ...]
    """Those that are shared out, with their sizes."""
    devices: int
    common: tuple[str, ...] = ()
    """The sample sites that are the same on all."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _Share(self)(*args, **kwargs)


# -- which plate, which data -----------------------------------------------------------


def share_out(
    plan: Plan,
    plates: Plates | None,
    target: Target,
    data: Data,
    point: Float[Array, "d"],
    trace: Trace | None,
    mesh: Mesh,
) -> Shared:
    """The plan with its blocks shared out over a mesh's first axis.

    Args:
        plan: of a fit on one device.
        plates: that it is of, if it is.
        target, data, point, trace: as of `ngvi.bayes.structure.choose`.
        mesh: of devices.

    Raises:
        Indivisible: it cannot be.
    """
    if not isinstance(plan, Structured) or not isinstance(target, ModelTarget):
        raise Indivisible("it has no blocks of plates")
    if plates is None or trace is None or data.prior is not None or target.enumerated:
        raise Indivisible("of a model with a prior= or discrete sites they are not")
    devices, axis = mesh.devices.shape[0], mesh.axis_names[0]
    plate, size = _largest(plates, plan.tree, devices)
    part = plates.share(plate, devices)
    tree = _tree(part, plate, devices, axis)
    cut_plates, lengths = _rows(trace, data, plate, size)
    for length in lengths:
        if length % devices:
            raise Indivisible(f"{length:,d} rows are no multiple of {devices} devices")
    cuts = _cuts(plates, plate)
    model = ShareOfModel(target.model, tuple(cut_plates.items()), devices)
    sites = tuple(
        replace(
            site,
            unconstrained_shape=_shrunk(site.unconstrained_shape, cut, devices),
            shape=_shrunk(site.shape, cut, devices),
        )
        for site, cut in zip(target.sites, cuts, strict=True)
    )
    shared = Shared(
        plan,
        Structured(tree, plan.observations // devices),
        replace(target, model=model, sites=sites),
        mesh,
        cuts,
        tuple(_axis(x.shape, lengths) for x in data.arrays),
        plate=size // devices,
    )
    try:
        shared = replace(shared, indices=_indices(shared, data))
        inside = {
            name
            for name, site in trace.items()
            if any(f.name in cut_plates for f in site.get("cond_indep_stack", ()))
        }
        common = _common(shared, target, data, point, inside)
    except Indivisible:
        raise
    except Exception as error:  # whatever a model does with fewer blocks
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise Indivisible(f"with a share of plate {plate} it fails: {why}") from error
    model = replace(model, common=(*common, *(f"_{n}_log_det" for n in common)))
    return replace(shared, target=replace(shared.target, model=model))


def _largest(plates: Plates, tree: Tree, devices: int) -> tuple[str, int]:
    """The plate whose blocks have most coordinates, of those that can be cut, and how
    many blocks there are along it."""
    found: dict[str, tuple[int, int]] = {}
    uneven = None
    for name in sorted({name for group in plates.groups for name in group.plates}):
        groups = [group for group in plates.groups if name in group.plates]
        count = groups[0].counts[groups[0].plates.index(name)]
        # Blocks of one device are neighbours only along the first of a level's plates.
        first = all(
            tree.levels[plates.all.index(g)].pieces[0].plates[0]
            == g.axis(g.pieces[0], name)
            for g in groups
        )
        if first and count % devices == 0:
            found[name] = sum(group.size for group in groups), count
        elif first:
            uneven = f"{count:,d} blocks of plate {name} are no multiple of {devices}"
    if not found:
        raise Indivisible(uneven or "no plate is the outermost")
    name = max(found, key=lambda name: found[name][0])
    return name, found[name][1]


def _tree(part: Plates, plate: str, devices: int, axis: str) -> Tree:
    shares = [devices if plate in group.plates else 1 for group in part.all]
    levels = zip(part.tree().levels, shares, strict=True)
    return Tree(tuple(replace(level, shares=n) for level, n in levels), axis)


def _rows(
    trace: Trace, data: Data, plate: str, size: int
) -> tuple[dict[str, int], list[int]]:
    """The plates that are shared out, with their sizes, and the lengths of the arrays:
    beside the given plate those of observations that are not in it."""
    sites = [site for site in trace.values() if site["type"] == "sample"]
    of_latent = {f.name for s in sites if is_latent(s) for f in s["cond_indep_stack"]}
    cut, lengths = {plate: size}, [size]
    for site in sites:
        frames = site["cond_indep_stack"]
        if is_latent(site) or any(f.name == plate for f in frames):
            continue
        rows = [f for f in frames if f.name not in of_latent]
        if rows:
            longest = max(rows, key=lambda f: f.size)
            cut[longest.name] = longest.size
            lengths.append(longest.size)
        elif is_observed(site) and np.ndim(site["value"]):
            lengths.append(np.shape(site["value"])[0])
    if all(_axis(x.shape, lengths) is None for x in data.arrays):
        # Only factors are left, which do not say of how many rows they are.
        lengths += [x.shape[0] for x in data.arrays if x.ndim][:1]
    return cut, lengths


def _cuts(plates: Plates, plate: str) -> tuple[int | None, ...]:
    """By site: the axis of the plate in its unconstrained value."""
    axes = {p.start: g.axis(p, plate) for g in plates.all for p in g.pieces}
    return tuple(axes[start] for start in sorted(axes))


def _shrunk(shape: tuple[int, ...], cut: int | None, devices: int) -> tuple[int, ...]:
    return tuple(n // devices if axis == cut else n for axis, n in enumerate(shape))


def _axis(shape: tuple[int, ...], lengths: list[int]) -> int | None:
    """The first axis of an array that is as long as a plate."""
    return next((axis for axis, n in enumerate(shape) if n in lengths), None)


# -- measured --------------------------------------------------------------------------


def _indices(shared: Shared, data: Data) -> tuple[int, ...]:
    """The arrays of whole numbers that on each device are indices of its own blocks."""
    whole = [
        i
        for i, (x, cut) in enumerate(zip(data.arrays, shared.arrays, strict=True))
        if cut is not None and jnp.issubdtype(x.dtype, jnp.integer)
    ]

    def ranges(data: Data) -> list[Array]:
        ends = [jnp.stack([data.arrays[i].min(), data.arrays[i].max()]) for i in whole]
        return [jax.lax.all_gather(x, shared.axis) for x in ends]

    ends = jax.jit(shared.on_devices(ranges, (), PartitionSpec()))(data)
    first = np.arange(shared.devices) * shared.plate
    return tuple(
        i
        for i, x in zip(whole, map(np.asarray, ends), strict=True)
        if (x[:, 0] >= first).all() and (x[:, 1] < first + shared.plate).all()
    )


def _log_probs(
    target: ModelTarget, data: Data, z: Float[Array, "d"]
) -> dict[str, Float[Array, ""]]:
    """log p of each site."""
    args, kwargs = target.arguments.join(data)
    values = target.constrain(data, z)
    latent = {site.name: values[site.name] for site in target.sites}
    model = handlers.seed(target.model, 0)
    return compute_log_probs(model, args, kwargs, latent)[0]


def _common(
    shared: Shared,
    target: ModelTarget,
    data: Data,
    point: Float[Array, "d"],
    inside: set[str],
) -> tuple[str, ...]:
    """The sites that are the same on all devices; those inside of a plate that is
    shared out are not."""
    if shared.devices == 1:
        return ()

    def each(data: Data, z: Array) -> dict[str, Array]:
        found = _log_probs(shared.target, data, z)
        return {name: jax.lax.all_gather(x, shared.axis) for name, x in found.items()}

    shift = np.random.default_rng(1).standard_normal(point.size)
    z = (np.asarray(point) + 0.01 * shift).astype(point.dtype)
    of_all = jax.jit(partial(_log_probs, target))(data, z)
    specs = (PartitionSpec(shared.axis),)
    of_each = jax.jit(shared.on_devices(each, specs, PartitionSpec()))(
        data, shared.spread(jnp.asarray(z))
    )
    latent = {site.name for site in target.sites} - inside
    common = []
    for name, value in of_all.items():
        whole, parts = float(value), np.asarray(of_each[name], float)
        near = np.finfo(point.dtype).eps ** 0.5 * (1 + np.abs(parts).sum() + abs(whole))
        same = bool((np.abs(parts - whole) <= near).all())
        adds_up = bool(abs(parts.sum() - whole) <= near)
        # Plates say which of the two it must be; of what is in none it must be clear.
        of_all_devices = name in latent or (name not in inside and same)
        clear = name in inside or name in latent or same != adds_up
        if not clear or not (same if of_all_devices else adds_up):
            raise Indivisible(
                f"the log density of '{name}' is no sum of those of the shares: rows "
                "must be in the order of their blocks, as many for each device"
            )
        if of_all_devices:
            common.append(name)
    return tuple(common)
