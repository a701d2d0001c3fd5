"""Data and draws shared out over devices, by JAX's own sharding.

Arrays that are cut along their rows make every compiled program of a fit one for all
devices: each evaluates ℓ and ∇ℓ for its rows and draws, and XLA adds them up. What goes
between devices in a step is the value and gradient at each of S draws, S (D + 1)
numbers, however many rows there are.
"""

from __future__ import annotations

import jax
from jax.sharding import Mesh

from ngvi.bayes.model_trace import Trace
from ngvi.bayes.target import Data
from ngvi.meshes import placed
from ngvi.mirror.draws import Ladder


def shared_out(data: Data, trace: Trace | None, mesh: Mesh) -> Data:
    """The arrays with the rows of the largest plate, cut along them.

    Args:
        data: of all arrays. Those that span processes already stay as they are.
        trace: the recorded run of a NumPyro model; without one the rows are those of
            the longest array.
        mesh: over whose first axis they are shared out; all else is on every device.

    Raises:
        ValueError: the devices cannot have equally many rows.
    """
    rows = _rows(data, trace)
    devices = mesh.devices.shape[0]
    if rows % devices:
        raise ValueError(
            f"{rows:,d} rows cannot be shared evenly by the {devices} devices along "
            f"the mesh's first axis: leave out {rows % devices}, or add some under "
            "numpyro.handlers.mask."
        )

    def put(x: jax.Array) -> jax.Array:
        if not x.is_fully_addressable:
            return x
        cut = x.ndim > 0 and x.shape[0] == rows
        return jax.device_put(x, placed(mesh, *mesh.axis_names[:1] if cut else ()))

    return data._replace(arrays=tuple(put(x) for x in data.arrays))


def draws_shared_out(draws: Ladder, mesh: Mesh) -> Ladder:
    """Base draws cut along a mesh's second axis, if it has one.

    Raises:
        ValueError: the devices cannot have equally many draws.
    """
    if len(mesh.axis_names) < 2:
        return draws
    devices = mesh.devices.shape[1]

    def put(x: jax.Array) -> jax.Array:
        if x.shape[-2] % devices:
            raise ValueError(
                f"{x.shape[-2]} draws cannot be shared evenly by the {devices} devices "
                f"along the mesh's second axis: take a divisor of {x.shape[-2]}."
            )
        return jax.device_put(
            x, placed(mesh, *[None] * (x.ndim - 2), mesh.axis_names[1])
        )

    return jax.tree.map(put, draws)


def _rows(data: Data, trace: Trace | None) -> int:
    if trace is not None:
        stacks = [site.get("cond_indep_stack", ()) for site in trace.values()]
        sizes = [frame.size for stack in stacks for frame in stack]
        lengths = {x.shape[0] for x in data.arrays if x.ndim}
        sizes = [size for size in sizes if size in lengths]
    else:
        sizes = [x.shape[0] for x in data.arrays if x.ndim]
    if not sizes:
        raise ValueError(
            "A mesh needs arrays with rows to be shared out: a plate of the model as "
            "long as its data, or an array among the log density's arguments."
        )
    return max(sizes)
