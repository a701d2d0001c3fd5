"""Folders of checkpoints: what a kill, a full disk and another run can do to them."""

from __future__ import annotations

import errno
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.checkpoints import (
    CheckpointError,
    Checkpoints,
    digest,
    files,
    from_arrays,
    repeat,
    to_arrays,
)
from ngvi.fisher import MLP
from ngvi.nets import run_epochs, vogn

IDENTITY = {"seed": 3, "x0": np.array([1.0, 2.0])}


def kept(folder: Path, kind: str = "count", **identity: Any) -> Checkpoints:
    return Checkpoints(folder, kind, IDENTITY | identity)


def filled(folder: Path, count: int = 3) -> list[Path]:
    """The files of a run that wrote so many checkpoints."""
    with kept(folder) as run:
        for i in range(1, count + 1):
            run.save({"total": np.arange(i)}, {"calls": i, "best": float("inf")})
    return sorted(folder.glob("checkpoint-*"))


def test_the_last_of_two_is_read(tmp_path: Path) -> None:
    with kept(tmp_path / "new" / "run") as run:
        assert run.latest() is None
    assert len(filled(tmp_path)) == 2
    with kept(tmp_path) as run:
        found = run.latest()
    assert found is not None
    np.testing.assert_array_equal(found.arrays["total"], [0, 1, 2])
    assert found.facts == {"calls": 3, "best": float("inf")}


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-100],
        lambda data: b"",
        lambda data: b"something else",
        lambda data: data[:600] + bytes(100) + data[700:],
    ],
)
def test_a_damaged_one_is_refused_and_the_one_before_used(
    tmp_path: Path, damage: Any
) -> None:
    last = filled(tmp_path)[-1]
    last.write_bytes(damage(last.read_bytes()))
    with kept(tmp_path) as run, pytest.warns(UserWarning, match="is damaged"):
        found = run.latest()
    assert found is not None and found.facts["calls"] == 2
    for path in tmp_path.glob("checkpoint-*"):
        path.write_bytes(damage(path.read_bytes()))
    with (
        kept(tmp_path) as run,
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(CheckpointError, match="there is no whole checkpoint"),
    ):
        run.latest()


def test_numbers_that_changed_in_a_whole_file_are_seen(tmp_path: Path) -> None:
    last = filled(tmp_path)[-1]
    with np.load(last) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["content/total"] = arrays["content/total"] + 1
    np.savez(last, **arrays)
    with kept(tmp_path) as run, pytest.warns(UserWarning, match="its checksum"):
        found = run.latest()
    assert found is not None and found.facts["calls"] == 2


def test_of_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    for other, text in (
        (kept(tmp_path, seed=4), "a count with another seed"),
        (kept(tmp_path, x0=np.zeros(3)), "another x0"),
        (kept(tmp_path, kind="fit"), "of a count, not of a fit"),
    ):
        with other as run, pytest.raises(CheckpointError, match=text):
            run.latest()
    monkeypatch.setattr(files, "VERSION", 2)
    with kept(tmp_path) as run, pytest.raises(CheckpointError, match="has format 1"):
        run.latest()
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(CheckpointError, match="is a file"):
        kept(file)


HOLDS = """
import sys, time
from ngvi.checkpoints import Checkpoints
with Checkpoints(sys.argv[1], "count", {}):
    print("in", flush=True)
    time.sleep(60)
"""


def test_two_runs_cannot_share_a_folder(tmp_path: Path) -> None:
    """Nor of one process; and a killed one leaves no lock behind."""
    with kept(tmp_path), pytest.raises(CheckpointError, match="in use by another run"):
        kept(tmp_path).__enter__()
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "in\n"
        with pytest.raises(CheckpointError, match="in use by another run"):
            kept(tmp_path).__enter__()
        other.kill()
    with kept(tmp_path) as run:
        assert run.latest() is None


def test_a_full_disk_costs_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with kept(tmp_path) as run:
        with monkeypatch.context() as patched:
            patched.setattr(np, "savez", full)
            with pytest.raises(OSError, match="No space left"):
                run.save({}, {})
        assert run.save({"total": np.zeros(2)}, {"calls": 1})
        with monkeypatch.context() as patched:
            patched.setattr(np, "savez", full)
            with pytest.warns(UserWarning, match="No space left.*The run goes on"):
                assert not run.save({"total": np.ones(2)}, {"calls": 2})
        found = run.latest()
    assert found is not None and found.facts["calls"] == 1
    assert not list(tmp_path.glob("part-*"))


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "part-abc").write_bytes(b"half")
    with kept(tmp_path) as run:
        found = run.latest()
    assert found is not None and found.facts["calls"] == 3
    assert not list(tmp_path.glob("part-*"))


def test_trees() -> None:
    tree = {"a": (jnp.arange(3), jnp.asarray(True)), "key": jax.random.key(4)}
    arrays = to_arrays(tree)
    like = jax.tree.map(jnp.zeros_like, tree | {"key": jax.random.key(0)})
    again = from_arrays(arrays, like)
    np.testing.assert_array_equal(again["a"][0], [0, 1, 2])
    assert bool(again["a"][1])
    assert bool(jax.random.normal(again["key"]) == jax.random.normal(tree["key"]))
    assert digest(tree) == digest(again) != digest(like)
    with pytest.raises(CheckpointError, match=r"has nothing for \['b'\]"):
        from_arrays(arrays, like | {"b": jnp.zeros(2)})
    with pytest.raises(CheckpointError, match=r"int.*\(3,\) for \['a'\]\[0\], where"):
        from_arrays(arrays, like | {"a": (jnp.arange(4), jnp.asarray(True))})


def test_a_killed_training_comes_to_the_same_net(tmp_path: Path) -> None:
    net = MLP((2, 4, 1))
    x = jax.random.normal(jax.random.key(0), (32, 2))
    batch = x, x[:, :1] * x[:, 1:]
    of_net = vogn(net, "gaussian", data_size=32, learning_rate=0.01)
    params = net.init(jax.random.key(1))
    state = of_net.init(params, batch)

    def epoch(state: Any, i: int, kill_at: int = 99) -> Any:
        if i == kill_at:
            raise KeyboardInterrupt
        key = jax.random.fold_in(jax.random.key(2), i)
        return run_epochs(of_net.rule, state, *batch, key, epochs=1, batch_size=8)[0]

    whole = repeat(epoch, state, 6, tmp_path / "whole")
    for kill_at in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            killed = partial(epoch, kill_at=kill_at)
            repeat(killed, state, 6, tmp_path / "killed", every=2)
    resumed = repeat(epoch, state, 6, tmp_path / "killed", every=2)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(CheckpointError, match="for another size"):
        repeat(epoch, (state, jnp.zeros(2)), 6, tmp_path / "killed")
    with pytest.raises(ValueError, match="every must be at least 1"):
        repeat(epoch, state, 6, tmp_path, every=0)
