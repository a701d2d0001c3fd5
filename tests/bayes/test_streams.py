"""Data in batches: the answer of all data at once, and what becomes of bad batches."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import ngvi
from ngvi.bayes.columns import Columns
from ngvi.bayes.diagnostics import EPOCHS_USED, INTERRUPTED, ONE_PASS
from ngvi.bayes.numpyro_model import model_target
from ngvi.bayes.reader import Reader
from ngvi.bayes.subsampling import RowReader, Subsampled
from ngvi.bayes.sums import added
from ngvi.bayes.target import Data, data_part, prior_part

ROWS, BATCH = 320, 50


def logistic(x: Any, y: Any = None) -> None:
    beta = numpyro.sample("beta", dist.Normal(0, 2).expand([3]).to_event(1))
    numpyro.deterministic("odds", jnp.exp(beta[0]))
    logits = numpyro.deterministic("logits", x @ beta)
    with numpyro.plate("row", x.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=logits), obs=y)


def make_data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = np.c_[np.ones(ROWS), rng.normal(size=(ROWS, 2))]
    chance = 1 / (1 + np.exp(-x @ np.array([0.5, -1.0, 2.0])))
    return x, (rng.uniform(size=ROWS) < chance).astype(float)


X, Y = make_data()


def batches(count: int = ROWS) -> list[dict[str, np.ndarray]]:
    starts = range(0, count, BATCH)
    return [{"x": X[s : s + BATCH], "y": Y[s : s + BATCH]} for s in starts]


@pytest.fixture(scope="module")
def whole() -> ngvi.Posterior:
    return ngvi.fit(logistic, x=X, y=Y)


@pytest.fixture(scope="module")
def streamed() -> ngvi.Posterior:
    return ngvi.fit(logistic, ngvi.Stream.from_arrays(x=X, y=Y, batch_size=BATCH))


def apart(one: ngvi.Posterior, other: ngvi.Posterior) -> float:
    """The largest difference of means, in sds."""
    a, b = one.gaussian, other.gaussian
    return float((jnp.abs(a.mean - b.mean) / jnp.sqrt(b.variance)).max())


def test_a_stream_has_the_answer_of_all_data(
    streamed: ngvi.Posterior, whole: ngvi.Posterior, tmp_path: Any
) -> None:
    d, full = streamed.diagnostics, whole.diagnostics
    assert d.converged and d.epochs <= 4
    assert apart(streamed, whole) < 0.02
    np.testing.assert_allclose(
        streamed.gaussian.variance, whole.gaussian.variance, rtol=0.02
    )
    assert abs(d.elbo - full.elbo) < 1e-3
    assert streamed.verdict.level == "trustworthy"
    # The density of the draws is that of all data.
    eps = jnp.zeros((2, 3)).at[1].set(0.5)
    moved = whole.with_approximation(streamed.gaussian)
    log_p = streamed.evaluate(eps)[0]
    np.testing.assert_allclose(log_p, moved.evaluate(eps)[0], rtol=1e-10)
    # What is of one batch is no part of the answer.
    assert set(streamed.mean) == {"beta", "odds"}

    streamed.save(tmp_path / "streamed.nc")
    mean = pickle.loads(pickle.dumps(streamed)).mean["odds"]
    np.testing.assert_array_equal(mean, streamed.mean["odds"])
    loaded = ngvi.load(tmp_path / "streamed.nc")
    np.testing.assert_allclose(loaded.mean["odds"], streamed.mean["odds"])
    assert loaded.verdict == streamed.verdict and loaded.diagnostics.epochs == d.epochs


def test_what_needs_the_data_says_so(streamed: ngvi.Posterior) -> None:
    assert streamed.predictive(X[:5], num_samples=7)["y"].shape == (7, 5)
    for question in (streamed.predictive, streamed.log_likelihood, streamed.nuts):
        with pytest.raises(TypeError, match="were read in batches and are not kept"):
            question()


def test_the_order_of_batches_is_of_no_account(streamed: ngvi.Posterior) -> None:
    options = {"batch_size": BATCH, "shuffle": 1, "prefetch": 0}
    columns = ngvi.Stream.from_arrays(x=X, y=Y, **options)
    listed = ngvi.Stream(batches(), shuffle=2)
    for stream in (columns, listed):
        posterior = ngvi.fit(logistic, stream)
        assert posterior.record.diagnostics.converged
        assert apart(posterior, streamed) < 0.02


def test_a_stream_that_is_read_once(streamed: ngvi.Posterior) -> None:
    posterior = ngvi.fit(logistic, ngvi.Stream(iter(batches())))
    assert posterior.diagnostics.stop_reason == ONE_PASS
    assert posterior.diagnostics.epochs == 1
    assert posterior.verdict.level == "means only"
    assert "One pass" in str(posterior.verdict)
    # Of batches as small as these the Gaussians in between cost a little.
    assert apart(posterior, streamed) < 0.25
    # Log evidences of batches, each given those before, add up.
    elbo = streamed.record.diagnostics.elbo
    assert abs(posterior.record.diagnostics.elbo - elbo) < 0.2


def test_as_many_epochs_as_allowed() -> None:
    posterior = ngvi.fit(logistic, ngvi.Stream(batches(), epochs=2))
    d = posterior.diagnostics
    assert d.stop_reason == EPOCHS_USED and d.epochs == 2
    assert d.converged == (d.fisher_length < 0.15)
    one = ngvi.fit(logistic, ngvi.Stream(batches(), epochs=1))
    assert not one.diagnostics.converged
    assert "Allow more" in str(one.verdict)


def test_a_stream_on_an_earlier_posterior(whole: ngvi.Posterior) -> None:
    first = ngvi.fit(logistic, ngvi.Stream(batches(150)))
    second = ngvi.fit(logistic, ngvi.Stream(batches()[3:]), prior=first)
    assert apart(second, whole) < 0.1
    total = first.record.diagnostics.elbo + second.record.diagnostics.elbo
    assert abs(total - whole.record.diagnostics.elbo) < 0.2


@pytest.mark.parametrize("batch", [X, (X,), {"x": X}, ((X,), {})])
def test_what_all_batches_share_comes_after_the_stream(batch: Any) -> None:
    reader = Reader(ngvi.Stream([batch, batch]), (2.0,), {"label": "a"})
    for read in reader:
        shared = (2.0,) if isinstance(batch, dict) else (X, 2.0)
        assert read.rows == ROWS and len(read.args) == len(shared)
        assert read.args[-1] == 2.0 and read.kwargs["label"] == "a"
    assert (reader.epoch, reader.batches, reader.rows) == (1, 2, 2 * ROWS)


# -- bad batches -----------------------------------------------------------------------


def changed(number: int, **arrays: Any) -> list[dict[str, np.ndarray]]:
    """The batches, with other arrays in one of them; None takes one out."""
    found = batches()
    found[number] = {
        name: value
        for name, value in (found[number] | arrays).items()
        if value is not None
    }
    return found


def with_one(array: np.ndarray, value: float) -> np.ndarray:
    array = array[:BATCH].copy()
    array[3] = value
    return array


def failing() -> Iterator[Any]:
    yield from batches()[:3]
    raise OSError("the disk is gone")


def shorter() -> Callable[[], Iterator[Any]]:
    counts = iter([ROWS, 200, 200])
    return lambda: iter(batches(next(counts)))


BAD: dict[str, tuple[Callable[[], ngvi.Stream], int, str]] = {
    "NaN": (
        lambda: ngvi.Stream(changed(2, y=with_one(Y, np.nan))),
        2,
        "Batch 2: the observed site 'y' has 1 values that are NaN or infinite",
    ),
    "outside": (
        lambda: ngvi.Stream(changed(2, y=with_one(Y, 2.0))),
        2,
        "Batch 2: the observed site 'y' has 1 values outside its support",
    ),
    "predictor": (
        lambda: ngvi.Stream(changed(3, x=with_one(X, np.nan))),
        3,
        r"Batch 3: its log likelihood is not finite\. NaN .* argument 'x' \(3 of 150",
    ),
    "last predictor": (
        lambda: ngvi.Stream(changed(6, x=X[-20:] * np.nan)),
        6,
        r"Batch 6: its log likelihood is not finite\. NaN .* argument 'x' \(60 of 60",
    ),
    "columns": (
        lambda: ngvi.Stream(changed(1, x=X[:BATCH, :2])),
        1,
        r"Batch 1: argument 'x' is float64 of shape \(50, 2\); in the first batch it "
        r"was float64 of shape \(50, 3\)",
    ),
    "dtype": (
        lambda: ngvi.Stream(changed(4, y=Y[:BATCH].astype(int))),
        4,
        "Batch 4: argument 'y' is int64 of shape",
    ),
    "lengths": (
        lambda: ngvi.Stream(changed(2, y=Y[:40])),
        2,
        "Batch 2: its arguments disagree in their number of rows: argument 'x' 50, "
        "argument 'y' 40",
    ),
    "missing": (
        lambda: ngvi.Stream(changed(5, y=None)),
        5,
        "Batch 5: argument 'y' is missing",
    ),
    "early": (
        lambda: ngvi.Stream(batches(300), rows=ROWS),
        6,
        "ended after batch 5 with 300 rows; 320 were declared",
    ),
    "earlier": (
        lambda: ngvi.Stream(shorter()),
        4,
        "ended after batch 3 with 200 rows; it had 7 batches with 320 rows before",
    ),
    "unreadable": (
        lambda: ngvi.Stream(failing()),
        3,
        "Batch 3 could not be read: OSError: the disk is gone",
    ),
}


@pytest.mark.parametrize("which", BAD)
def test_a_bad_batch_is_named_and_the_fit_so_far_is_kept(which: str) -> None:
    make, number, message = BAD[which]
    with pytest.raises(ngvi.StreamError, match=message) as caught:
        ngvi.fit(logistic, make())
    assert caught.value.batch == number
    kept = caught.value.posterior
    assert kept is not None and np.isfinite(kept.gaussian.mean).all()
    assert kept.diagnostics.stop_reason == str(caught.value)
    assert kept.verdict.level == "do not trust"


def test_interruption_keeps_what_was_absorbed() -> None:
    def interrupted() -> Iterator[Any]:
        yield from batches()[:4]
        raise KeyboardInterrupt

    posterior = ngvi.fit(logistic, ngvi.Stream(interrupted))
    assert posterior.diagnostics.stop_reason == INTERRUPTED
    assert posterior.verdict.level == "do not trust"
    first = ngvi.fit(logistic, ngvi.Stream(iter(batches(200))))
    assert apart(posterior, first) < 0.25


def test_the_first_batch_must_be_usable() -> None:
    with pytest.raises(ngvi.StreamError, match="has no batch"):
        ngvi.fit(logistic, ngvi.Stream([]))
    with pytest.raises(ValueError, match="'y' holds NaN or infinity in 1 of 50"):
        ngvi.fit(logistic, ngvi.Stream(changed(0, y=with_one(Y, np.nan))))


def test_shapes_that_are_values_are_refused() -> None:
    def model(group: Any, y: Any) -> None:
        with numpyro.plate("group", int(np.max(group)) + 1):
            mu = numpyro.sample("mu", dist.Normal(0, 5))
        numpyro.sample("y", dist.Normal(mu[group], 1.0), obs=y)

    stream = ngvi.Stream([(np.arange(4), np.zeros(4))])
    with pytest.raises(ValueError, match="a shape or a branch from the values of an"):
        ngvi.fit(model, stream)


def test_wrong_streams() -> None:
    with pytest.raises(TypeError, match="batches to iterate over, not int"):
        ngvi.Stream(3)
    with pytest.raises(ValueError, match="epochs must be at least 1, not 0"):
        ngvi.Stream([], epochs=0)
    with pytest.raises(ValueError, match="Only a list of batches or columns can be"):
        ngvi.Stream(iter([]), shuffle=0)
    with pytest.raises(ValueError, match="'0' has 320 rows, 'y' has 300"):
        ngvi.Stream.from_arrays(X, y=Y[:300], batch_size=50)
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        ngvi.Stream.from_arrays(X, batch_size=0)
    with pytest.raises(ValueError, match="'n' is a single number"):
        ngvi.Stream.from_arrays(X, n=3, batch_size=5)


def test_data_of_different_lengths() -> None:
    with pytest.raises(ValueError, match=r"at site 'y', its observations have .*8"):
        ngvi.fit(logistic, X[:10], Y[:8])


# -- subsampled plates -----------------------------------------------------------------


def subsampled(x: Any, y: Any, batch: int | None) -> None:
    beta = numpyro.sample("beta", dist.Normal(0, 2).expand([3]).to_event(1))
    with numpyro.plate("row", x.shape[0], subsample_size=batch) as rows:
        logits = x[rows] @ beta
        numpyro.sample("y", dist.Bernoulli(logits=logits), obs=y[rows])


@pytest.mark.filterwarnings("ignore:subsample_size does not match")
def test_a_subsampled_plate_is_covered(whole: ngvi.Posterior) -> None:
    posterior = ngvi.fit(subsampled, X, Y, 50)
    assert posterior.verdict.level == "trustworthy"
    assert posterior.diagnostics.epochs >= 2
    assert apart(posterior, whole) < 1e-6
    assert posterior.log_likelihood(10)["y"].shape == (10, ROWS)
    with pytest.raises(ValueError, match=r"plate 'row' asks for a subsample of 400 of"):
        ngvi.fit(subsampled, X, Y, 400)


def grouped(y: Any, extra: Any, batch: int | None) -> None:
    """A parameter for each row of the plate, and an observation outside of it."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
    spread = numpyro.sample("spread", dist.LogNormal(0.0, 0.5))
    with numpyro.plate("group", y.shape[0], subsample_size=batch) as groups:
        theta = numpyro.sample("theta", dist.LogNormal(mean, spread))
        with numpyro.plate("item", y.shape[1], dim=-2):
            numpyro.sample("y", dist.Poisson(theta), obs=y[groups].T)
    numpyro.sample("extra", dist.Normal(mean, 1.0), obs=extra)


COUNTS = np.random.default_rng(0).poisson(3.0, (12, 4)).astype(float)


def test_parts_of_a_plate_add_up_to_the_model() -> None:
    args = (COUNTS, np.float64(0.7), 5)
    target, data, point, trace = model_target(grouped, args, {}, None)
    assert trace["theta"]["value"].shape == (12,) and target.dim == 14
    assert [site.local for site in target.sites] == [(), (), (("group", 0),)]
    z = point + 0.1 * jnp.arange(14)

    @jax.jit
    def parts(z: Any) -> tuple[Any, Any]:
        total = prior_part(target, data, z)
        for rows in (jnp.arange(5), jnp.arange(5, 10), jnp.arange(10, 12)):
            total += data_part(target, data._replace(rows={"group": rows}), z)
        return total, target.joint(data, z)

    plain = model_target(grouped, (COUNTS, np.float64(0.7), None), {}, None)
    value = plain[0].potential(plain[1], z)
    np.testing.assert_allclose(parts(z), (value, value), rtol=1e-12)


def test_a_subsampled_plate_with_parameters_of_its_own() -> None:
    def model(y: Any) -> None:
        mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
        with numpyro.plate("group", 7, subsample_size=3) as groups:
            theta = numpyro.sample("theta", dist.Normal(mean, 1.0))
            numpyro.sample("y", dist.Normal(theta, 0.5), obs=y[groups])

    y = np.arange(7.0)
    posterior = ngvi.fit(model, y, covariance="structured")
    assert "7 blocks" in str(posterior.structure)
    precision = np.diag([0.04 + 7, *np.full(7, 5.0)])
    precision[0, 1:] = precision[1:, 0] = -1
    mean = np.linalg.solve(precision, np.r_[0, 4 * y])
    sd = np.sqrt(np.diag(np.linalg.inv(precision)))
    assert (np.abs(posterior.gaussian.mean - mean) / sd).max() < 0.02
    assert posterior.record.diagnostics.converged
    assert posterior.sample(3)["theta"].shape == (3, 7)


def test_one_subsampled_plate_at_a_time() -> None:
    plates = Subsampled("a", 10, 5), Subsampled("b", 10, 5)
    with pytest.raises(ValueError, match="'a', 'b' are subsampled"):
        RowReader(plates, Data(()), 0)


# -- columns ---------------------------------------------------------------------------


def test_columns_are_read_once_whatever_the_order(tmp_path: Any) -> None:
    np.save(tmp_path / "x.npy", np.arange(46.0).reshape(23, 2))
    columns = Columns([tmp_path / "x.npy"], {"y": np.arange(23)}, 8)
    assert len(columns) == 3
    orders = [list(columns), list(columns.shuffled(np.random.default_rng(0)))]
    for order in orders:
        assert [len(kwargs["y"]) for _, kwargs in order] == [8, 8, 7]
        for (x,), kwargs in order:
            np.testing.assert_array_equal(x[:, 0], 2 * kwargs["y"])
        every = np.concatenate([kwargs["y"] for _, kwargs in order])
        np.testing.assert_array_equal(np.sort(every), np.arange(23))
    assert orders[1][0][1]["y"].tolist() != orders[0][0][1]["y"].tolist()


def test_parquet(tmp_path: Any) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"a": X[:, 1], "b": X[:, 2], "label": Y})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet", row_group_size=70)
    names = {"x": ["a", "b"], "y": "label"}
    stream = ngvi.Stream.from_parquet(
        tmp_path / "t.parquet", names, batch_size=50, shuffle=0
    )
    read = [kwargs for _, kwargs in stream.read(0)]
    assert [len(batch["y"]) for batch in read] == [50] * 6 + [20]
    x, y = (np.concatenate([batch[name] for batch in read]) for name in "xy")
    order, wanted = np.argsort(x[:, 0]), np.argsort(X[:, 1])
    np.testing.assert_array_equal(x[order], X[wanted, 1:])
    np.testing.assert_array_equal(y[order], Y[wanted])
    with pytest.raises(ValueError, match=r"no column 'c'\. It has: a, b, label"):
        ngvi.Stream.from_parquet(tmp_path / "t.parquet", {"x": "c"}, batch_size=5)


def test_zarr() -> None:
    zarr = pytest.importorskip("zarr")
    x = zarr.array(X, chunks=(64, 3))
    stream = ngvi.Stream.from_arrays(x, batch_size=50, shuffle=0)
    read = np.concatenate([args[0] for args, _ in stream.read(0)])
    np.testing.assert_array_equal(np.sort(read, 0), np.sort(X, 0))


def test_a_long_sum_keeps_its_digits() -> None:
    parts = np.random.default_rng(0).uniform(size=20_000).astype(np.float32)
    total, _ = jax.lax.scan(
        lambda carry, x: (added(carry, x), None),
        added(None, jnp.float32(0.0)),
        jnp.asarray(parts),
    )
    exact = parts.astype(float).sum()
    assert abs(float(total.sum) - exact) < 2 * np.spacing(np.float32(exact))
