"""Fits over simulated devices and over processes: as on one device, to rounding."""

from __future__ import annotations

import json
import math
import re
import socket
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

import ngvi
from tests.bayes.test_checkpointing import LABELS, X, logistic
from tests.processes import on_devices, run_python

DEVICES = r"""
import json
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from jax.sharding import Mesh
import ngvi
from ngvi.bayes import fit_in_memory
from tests.bayes.test_checkpointing import LABELS, X, logistic
from tests.bayes.test_sharding import numbers_moved

advance, found = fit_in_memory.compiled_advance, []

def reading(*args):
    fit_in_memory.compiled_advance = advance
    found.append(numbers_moved(advance.lower(*args).compile().as_text()))
    return advance(*args)

means = []
for repeat, shape in ((1, (4,)), (1, (2, 2)), (2, (4,))):
    names = ("rows", "draws")[: len(shape)]
    mesh = Mesh(np.array(jax.devices()).reshape(shape), names)
    fit_in_memory.compiled_advance = reading
    x, y = np.tile(X, (repeat, 1)), np.tile(LABELS, repeat)
    fitted = ngvi.fit(logistic, x, y, mesh=mesh)
    assert len(fitted.data.arrays[0].sharding.device_set) == 4
    assert not fitted.data.arrays[0].sharding.is_fully_replicated
    means.append(np.asarray(fitted.gaussian.mean).tolist())
print(json.dumps({"means": means, "numbers": found}))
"""


MOVES = "all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all"


def numbers_moved(program: str) -> int:
    """How many go between devices in a compiled program."""
    shapes = re.findall(rf"= ([^=]*?) (?:{MOVES})(?:-start)?\(", program)
    sizes = re.findall(r"[a-z]+[0-9]+\[([0-9,]*)\]", " ".join(shapes))
    return sum(math.prod(int(n) for n in s.split(",") if n) for s in sizes)


def test_over_devices() -> None:
    """The same answer; and what goes between devices does not grow with the rows."""
    found = json.loads(on_devices(DEVICES, 4))
    alone = np.asarray(ngvi.fit(logistic, X, LABELS).gaussian.mean)
    np.testing.assert_allclose(found["means"][0], alone, rtol=1e-12)
    np.testing.assert_allclose(found["means"][1], alone, rtol=1e-12)
    once, _, twice = found["numbers"]
    assert 0 < once == twice < 2000


PROCESS = """
import sys
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
port, folder = sys.argv[1], sys.argv[4]
number, count = int(sys.argv[2]), int(sys.argv[3])
jax.distributed.initialize(f"localhost:{port}", count, number)
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import ngvi
from tests.bayes.test_checkpointing import LABELS, X, logistic

rows = NamedSharding(Mesh(np.array(jax.devices()), ("rows",)), PartitionSpec("rows"))
part = slice(number * len(X) // count, (number + 1) * len(X) // count)
x, y = (jax.make_array_from_process_local_data(rows, a[part]) for a in (X, LABELS))
for _ in range(2):  # the second goes on from the end of the first
    fitted = ngvi.fit(logistic, x, y, checkpoint=f"{folder}/kept")
fitted.save(f"{folder}/posterior{number}.nc")
np.save(f"{folder}/mean{number}.npy", fitted.gaussian.mean)
print(fitted.verdict.level)
"""


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_over_processes(tmp_path: Path, count: int) -> None:
    """Each has its rows; all come to the answer of one, and the first one writes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = "--xla_backend_optimization_level=0"
    processes = [
        run_python(PROCESS, port, i, count, tmp_path, XLA_FLAGS=flags)
        for i in range(count)
    ]
    answers = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count
    assert all(answer.splitlines()[-1] == "trustworthy" for answer in answers)
    alone = np.asarray(ngvi.fit(logistic, X, LABELS).gaussian.mean)
    for i in range(count):
        np.testing.assert_allclose(
            np.load(tmp_path / f"mean{i}.npy"), alone, rtol=1e-12
        )
    assert [p.name for p in tmp_path.glob("*.nc")] == ["posterior0.nc"]
    loaded = ngvi.load(tmp_path / "posterior0.nc")
    assert loaded.mean["w"].shape == (3,)


def test_what_cannot_be_shared_out_is_named() -> None:
    two = np.array([jax.devices()[0]] * 2)
    with pytest.raises(ValueError, match="401 rows cannot be shared evenly by the 2"):
        ngvi.fit(
            logistic,
            np.tile(X, (2, 1))[:401],
            np.tile(LABELS, 2)[:401],
            mesh=Mesh(two, ("rows",)),
        )
    with pytest.raises(ValueError, match="needs arrays with rows"):
        ngvi.fit(
            lambda z: -(z**2).sum(), init=np.zeros(2), mesh=Mesh(two[:1], ("rows",))
        )
    with pytest.raises(ValueError, match="not for batches"):
        stream = ngvi.Stream([(X, LABELS)])
        ngvi.fit(logistic, stream, mesh=Mesh(two[:1], ("rows",)))
    with pytest.raises(ValueError, match="mean field there can be no mesh"):
        ngvi.fit(logistic, X, LABELS, family="mean-field", mesh=Mesh(two, ("rows",)))
