"""A structured fit whose blocks are shared out over devices, those of one plate.

Each of P devices has the border and its own blocks, in vectors as in matrices
(`ngvi.linalg.tree`), and its own part of the density (`ngvi.bayes.shared_model`):

    ℓ(z) = Σ_p ℓ_p(border, blocks of p).

All runs on each, and what goes between devices in a trial step are, of each of S draws,
the value and the gradient in the border's b coordinates, and these once more as they
are whitened: S (2b + 1) numbers; b for each length that is tried; and the numbers that
lengths and products come to. Nothing in it grows with rows or blocks. Only the start
adds up a matrix of the border, once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from ngvi.bayes.numpyro_model import ModelTarget
from ngvi.bayes.plan import Structured
from ngvi.bayes.target import Data
from ngvi.families import Gaussian
from ngvi.linalg import BlockArrow, Tree
from ngvi.meshes import placed
from ngvi.mirror import loop
from ngvi.mirror.draws import Ladder
from ngvi.mirror.estimates import FirstOrder, Potential
from ngvi.mirror.start import Start


@dataclass(frozen=True)
class Shared:
    """`Structured`, with the blocks of a plate shared out over a mesh's first axis."""

    whole: Structured
    part: Structured
    """Of one device."""
    target: ModelTarget
    """Of one device."""
    mesh: Mesh
    cuts: tuple[int | None, ...]
    """By site: the axis along which its unconstrained value is shared out."""
    arrays: tuple[int | None, ...]
    """The same of the data."""
    indices: tuple[int, ...] = ()
    """Which of the data are indices into the plate."""
    plate: int = 0
    """Blocks of the plate on one device."""

    covariance = "structured"

    @property
    def dim(self) -> int:
        return self.whole.dim

    @property
    def axis(self) -> str:
        """The mesh's first axis."""
        return self.mesh.axis_names[0]

    @property
    def devices(self) -> int:
        """Along it, P."""
        return self.mesh.devices.shape[0]

    # -- as a plan ---------------------------------------------------------------

    def draws(self, seed: int, dtype: Any) -> Ladder:
        """Those of one device, cut apart."""
        return jax.tree.map(self.spread, self.whole.draws(seed, dtype))

    def settings(self, settings: loop.Settings) -> loop.Settings:
        of_part = self.part.settings(settings)
        return replace(self.whole.settings(settings), at_once=of_part.at_once)

    def start(self, potential: Potential, point: Float[Array, "d"]) -> Start:
        return self.part.start(potential, point)

    def estimator(self) -> FirstOrder:
        return self.part.estimator()

    # -- layouts -----------------------------------------------------------------

    @property
    def _pieces(self) -> list[tuple[int, tuple[int, ...], int | None]]:
        """Of each site: where it begins in z, its shape, and where it is cut."""
        shapes = [
            _grown(s.unconstrained_shape, cut, self.devices)
            for s, cut in zip(self.target.sites, self.cuts, strict=True)
        ]
        starts = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])[:-1]
        return list(zip(starts.tolist(), shapes, self.cuts, strict=True))

    def spread(self, vectors: Float[Array, "*b d"]) -> Float[Array, "*b pd"]:
        """Vectors shared out: the border and its own blocks for each device."""
        z, parts = np.asarray(vectors), []
        lead = z.shape[:-1]
        for start, shape, cut in self._pieces:
            piece = z[..., start : start + int(np.prod(shape))].reshape((*lead, *shape))
            if cut is None:
                copies = np.repeat(piece[None], self.devices, 0)
            else:
                copies = np.stack(np.split(piece, self.devices, len(lead) + cut))
            parts.append(copies.reshape(self.devices, *lead, -1))
        whole = np.moveaxis(np.concatenate(parts, -1), 0, -2).reshape(*lead, -1)
        sharding = placed(self.mesh, *[None] * len(lead), self.axis)
        return jax.make_array_from_callback(whole.shape, sharding, whole.__getitem__)

    def _together(self, shared: Float[Array, "pd"]) -> Float[Array, "d"]:
        """The inverse, of one vector."""
        rows, pieces, start = shared.reshape(self.devices, -1), [], 0
        for site, (_, _, cut) in zip(self.target.sites, self._pieces, strict=True):
            copies = rows[:, start : start + site.size]
            copies = copies.reshape(self.devices, *site.unconstrained_shape)
            piece = copies[0] if cut is None else jnp.concatenate(list(copies), cut)
            pieces.append(piece.ravel())
            start += site.size
        return jnp.concatenate(pieces)

    def together(self, state: loop.State) -> loop.State:
        """A state at its end, whole on every device, without what led there."""

        def made(state: loop.State) -> loop.State:
            precision, estimate = state.q.precision, state.estimate
            tree = self.whole.tree
            return replace(
                state,
                q=Gaussian(
                    self._together(state.q.mean),
                    BlockArrow(precision.root, precision.inverse_root, tree),
                ),
                estimate=estimate._replace(
                    gradient=_nothing(estimate.gradient),
                    spread=self._together(estimate.spread),
                ),
                memory=_nothing(state.memory),
            )

        return jax.jit(made, out_shardings=placed(self.mesh))(state)

    # -- programs ----------------------------------------------------------------

    def own(self, data: Data) -> Data:
        """A device's data, its indices counted from its own first block."""
        first = jax.lax.axis_index(self.axis) * self.plate
        arrays = [
            x - first.astype(x.dtype) if i in self.indices else x
            for i, x in enumerate(data.arrays)
        ]
        return data._replace(arrays=tuple(arrays))

    def of_data(self, data: Data) -> Data:
        """How the data are shared out."""
        specs = (_spec(cut, self.axis) for cut in self.arrays)
        rest = jax.tree.map(lambda _: PartitionSpec(), data._replace(arrays=()))
        return rest._replace(arrays=tuple(specs))

    @cached_property
    def of_state(self) -> Any:
        """How a state is shared out: along the axis by which a device's is shorter."""

        def made(tree: Tree) -> loop.State:
            identity = BlockArrow.identity(tree, jnp.result_type(float))
            draws = Ladder(jnp.zeros((1, 2, tree.dim)), jnp.zeros((2, tree.dim)))
            q = Gaussian(jnp.zeros(tree.dim), identity)
            return loop.initial_state(jnp.sum, FirstOrder(), q, draws, loop.Settings())

        one = jax.vmap(lambda _: made(self.part.tree), axis_name=self.axis)
        shape = jax.ShapeDtypeStruct((self.devices,), int)
        leaves, structure = jax.tree.flatten(jax.eval_shape(one, shape))
        whole = jax.tree.leaves(jax.eval_shape(lambda: made(self.whole.tree)))
        specs = [
            PartitionSpec(
                *(
                    None if short == long else self.axis
                    for short, long in zip(a.shape[1:], b.shape, strict=True)
                )
            )
            for a, b in zip(leaves, whole, strict=True)
        ]
        return jax.tree.unflatten(structure, specs)

    def on_devices(
        self, function: Callable[..., Any], specs: tuple[Any, ...], results: Any
    ) -> Callable[..., Any]:
        """The function of each device's arguments, data first, as one of shared ones.

        Args:
            function: what each does.
            specs: how its other arguments are shared out.
            results: how what it returns is.
        """

        def mapped(data: Data, *arguments: Any) -> Any:
            return jax.shard_map(
                lambda data, *rest: function(self.own(data), *rest),
                mesh=placed(self.mesh).mesh,
                in_specs=(self.of_data(data), *specs),
                out_specs=results,
                check_vma=False,
            )(data, *arguments)

        return mapped

    @property
    def of_draws(self) -> Ladder:
        """How base draws are shared out."""
        vectors = PartitionSpec(None, self.axis)
        return Ladder(PartitionSpec(None, None, self.axis), vectors)  # type: ignore


def _nothing(arrays: Any) -> Any:
    return jax.tree.map(lambda x: x[:0], arrays)


def _spec(cut: int | None, axis: str) -> PartitionSpec:
    return PartitionSpec() if cut is None else PartitionSpec(*[None] * cut, axis)


def _grown(shape: tuple[int, ...], cut: int | None, times: int) -> tuple[int, ...]:
    return tuple(n * times if axis == cut else n for axis, n in enumerate(shape))
