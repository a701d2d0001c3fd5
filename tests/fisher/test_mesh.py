"""Data over the devices of a mesh: the same curvature, by collectives."""

from __future__ import annotations

from tests.processes import on_devices

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ngvi.fisher import fisher

devices = jax.devices()
assert len(devices) == 4
rng = np.random.default_rng(0)
params = {"w": jnp.asarray(rng.standard_normal((3, 4))),
          "v": jnp.asarray(rng.standard_normal((4, 2)))}
x, y = rng.standard_normal((24, 3)), rng.integers(0, 2, 24)

def net(p, x):
    return jnp.tanh(x @ p["w"]) @ p["v"]

mesh = Mesh(np.array(devices), ("data",))
spread = jax.device_put((x, y), NamedSharding(mesh, PartitionSpec("data")))
everywhere = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
for structure in ("dense", "kronecker-eigen", "matrix-free"):
    options = {"likelihood": "categorical", "kind": "empirical", "structure": structure}
    one = fisher(net, params, (x, y), **options)
    many = fisher(net, everywhere, spread, **options)
    np.testing.assert_allclose(many.dense(), one.dense(), atol=1e-12)
    v = jax.tree.map(jnp.ones_like, params)
    ours = many.solve(jax.device_put(v, NamedSharding(mesh, PartitionSpec())), 0.1)
    np.testing.assert_allclose(ours["w"], one.solve(v, 0.1)["w"], rtol=1e-3)

text = jax.jit(
    lambda p, x: fisher(net, p, x, likelihood="categorical").matrix.matrix
).lower(everywhere, spread[0]).compile().as_text()
assert "all-reduce" in text
print("done")
"""


def test_sharded_data_give_the_same_curvature() -> None:
    assert on_devices(PROGRAM, 4) == "done"
