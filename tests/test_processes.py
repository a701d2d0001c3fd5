"""What two processes do over one mesh: as one alone, to rounding."""

from __future__ import annotations

import socket
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ngvi
from ngvi.fisher import fisher
from ngvi.nets.optimizers import kfac
from tests.bayes.test_shares import counted, counts
from tests.nets import problems
from tests.processes import run_python

PROCESS = """
import sys
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
port, number, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.distributed.initialize(f"localhost:{port}", 2, number)
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import ngvi
from ngvi.meshes import filled_up, whole
from tests.test_processes import FIT, of_net, quartic

mesh = Mesh(np.array(jax.devices()), ("rows",))
rows = NamedSharding(mesh, PartitionSpec("rows"))
everywhere = NamedSharding(mesh, PartitionSpec())

def own(x):
    # Each process has loaded its half.
    half = len(x) // 2
    part = x[number * half : (number + 1) * half]
    return jax.make_array_from_process_local_data(rows, part)

model, data = FIT
data = {k: own(x) if isinstance(x, np.ndarray) else x for k, x in data.items()}
for _ in range(2):  # the second goes on from the end of the first
    fitted = ngvi.fit(
        model, **data, covariance="structured", mesh=mesh, checkpoint=f"{folder}/kept"
    )
assert not fitted.structure.notes, fitted.structure
found = ngvi.minimize(quartic, jnp.ones(3), budget=300, mesh=mesh)
# Seven points are four on each device.
shared = jax.jit(lambda p: whole(jax.vmap(quartic)(filled_up(p, mesh)), mesh)[:7])
assert "f64[4,3]" in shared.lower(np.ones((7, 3))).compile().as_text()
net = of_net(mesh, own, lambda x: jax.device_put(x, everywhere))
np.savez(
    f"{folder}/found{number}.npz",
    mean=fitted.gaussian.mean,
    variance=fitted.gaussian.variance,
    x=found.x,
    **net,
)
"""

FIT = counts, counted(16, 5)


def quartic(x: jax.Array) -> jax.Array:
    return ((x - jnp.arange(3)) ** 4).sum() + (x[0] - x[1]) ** 2


def of_net(mesh=None, own=np.asarray, everywhere=np.asarray) -> dict[str, np.ndarray]:
    """Weights after two steps of K-FAC, whose factorisations devices share, and the
    empirical Fisher matrix before."""
    data = tuple(
        own(np.asarray(x))
        for x in (problems.X.reshape(-1, 2), problems.LABELS.reshape(-1))
    )
    params = jax.tree.map(everywhere, problems.PARAMS)
    kind = {"likelihood": "categorical", "kind": "empirical"}
    matrix = fisher(problems.apply, params, data, structure="dense", **kind).dense()
    optimizer = kfac(problems.apply, "categorical", mesh=mesh, refresh=1)
    state = optimizer.init(params, data)
    step = jax.jit(optimizer.step)
    for i in range(2):
        state, _ = step(state, data, jax.random.key(i))
    return {"weights": np.asarray(state.weights), "fisher": np.asarray(matrix)}


@pytest.mark.slow
def test_two_processes_on_one_mesh(tmp_path: Path) -> None:
    """A structured fit with checkpoints, a search, K-FAC and a Fisher matrix."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = "--xla_backend_optimization_level=0"
    processes = [
        run_python(PROCESS, port, i, tmp_path, XLA_FLAGS=flags) for i in range(2)
    ]
    for process in processes:
        process.communicate(timeout=600)
    assert [process.returncode for process in processes] == [0, 0]
    model, data = FIT
    alone = ngvi.fit(model, **data, covariance="structured").gaussian
    searched = ngvi.minimize(quartic, jnp.ones(3), budget=300)
    net = of_net()
    for i in range(2):
        found = np.load(tmp_path / f"found{i}.npz")
        np.testing.assert_allclose(found["mean"], alone.mean, rtol=1e-8)
        np.testing.assert_allclose(found["variance"], alone.variance, rtol=1e-8)
        np.testing.assert_allclose(found["x"], searched.x, rtol=1e-8)
        for name, value in net.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-10, atol=1e-15)
