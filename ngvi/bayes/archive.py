"""A fit as labelled arrays: for a file, for ArviZ, for the report.

An archive is a set of xarray data sets by name (posterior, sample_stats, …), as ArviZ
knows them, and a record of plain values (verdict, diagnostics, summary). It needs the
model no more. On disk it is a netCDF file with a group for each data set and the record
as JSON in an attribute of the root, which any version of ArviZ opens too.
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ngvi.arviz_data import as_arviz

if TYPE_CHECKING:
    from xarray import Dataset

FORMAT = 1
"""Grows when a file of an older ngvi can no longer be read as it is."""
RECORD = "ngvi_record"
"""The attribute that holds the record."""
ENGINE: Literal["h5netcdf"] = "h5netcdf"
_COMPRESSED_FROM = 10_000


def plain(value: Any) -> Any:
    """A value as strict JSON knows it: NaN becomes None, infinity "inf" or "-inf"."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None if np.isnan(value) else str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def number(value: Any) -> float:
    """The number that `plain` wrote."""
    return float("nan") if value is None else float(value)


def check_writable(path: Any) -> Path:
    """The path, absolute, once it is certain that a file can be written there.

    Folders on the way are created.

    Raises:
        OSError: it cannot; the message names the path.
    """
    path = Path(path).expanduser().resolve()
    if path.is_dir():
        why = "it is a folder. Name a file in it, such as 'posterior.nc'"
        raise IsADirectoryError(errno.EISDIR, f"Cannot write {path}: {why}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        probe = _partial(path)
        probe.touch()
        probe.unlink()
    except OSError as error:
        why = error.strerror or str(error)
        # OSError makes itself the subclass of its number: PermissionError and so on.
        raise OSError(error.errno, f"Cannot write {path}: {why}") from error
    return path


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}.part")


@dataclass(frozen=True)
class Archive:
    """What a fit leaves behind.

    Attributes:
        groups: xarray data sets by name. Draws have dims (chain, draw, …) with one
            chain; other dims are named by the model's plates.

            - posterior: latent and deterministic sites, on their own supports;
            - sample_stats: lp (log p of the unconstrained draw with the Jacobian, up to
              a constant), log_q, log_weight = lp − log_q;
            - importance: log_weight of the draws behind k-hat and the verdict, which
              may be more than those of posterior; dim check_draw;
            - gaussian: mean and precision of q on the unconstrained space, for
              `ngvi.bayes.stored_gaussian`;
            - fit_history: dim iteration;
            - posterior_predictive, log_likelihood, observed_data, constant_data, prior,
              prior_predictive: where the model and the request give them.
        record: strict JSON values: "model", "ngvi", "verdict", "diagnostics",
            "latent_sites", "gaussian", "summary" (pandas' split form), "notes" (why
            something is left out) and "format". NaN is None, infinity "inf".
    """

    groups: dict[str, Dataset]
    record: dict[str, Any]

    def write(self, path: Any) -> None:
        """Write a netCDF file; one that is there already is replaced when all is done.

        Raises:
            OSError: the file cannot be written; the message names it.
        """
        from xarray import Dataset

        path = check_writable(path)
        partial = _partial(path)
        try:
            root = Dataset(attrs=self._attrs())
            root.to_netcdf(partial, mode="w", engine=ENGINE)
            for name, group in self.groups.items():
                encoding = {
                    variable: {"zlib": True, "complevel": 1, "shuffle": True}
                    for variable, array in group.data_vars.items()
                    if array.size > _COMPRESSED_FROM
                }
                group.to_netcdf(
                    partial, mode="a", group=name, engine=ENGINE, encoding=encoding
                )
            partial.replace(path)
        except OSError as error:
            why = error.strerror or str(error)
            raise OSError(error.errno, f"Cannot write {path}: {why}") from error
        finally:
            partial.unlink(missing_ok=True)

    @staticmethod
    def read(path: Any) -> Archive:
        """Read a file of `write`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not one of `write`, or of a newer ngvi.
        """
        import xarray

        path = Path(path).expanduser()
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "There is no such file", str(path))
        try:
            opened = xarray.open_groups(path, engine=ENGINE)
        except PermissionError:
            raise
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{path} is not a netCDF file ({error}).") from error
        try:
            groups = {name.strip("/"): group.load() for name, group in opened.items()}
        finally:
            for group in opened.values():
                group.close()
        text = groups.pop("", xarray.Dataset()).attrs.get(RECORD)
        if text is None:
            raise ValueError(
                f"{path} is not a posterior of ngvi: it holds no record of a fit. "
                "posterior.save(path) writes one."
            )
        record = json.loads(text)
        if record.get("format", FORMAT) > FORMAT:
            raise ValueError(
                f"{path} was written by ngvi {record.get('ngvi')} in a newer form than "
                "this ngvi reads: update ngvi."
            )
        return Archive(groups, record)

    def _attrs(self) -> dict[str, Any]:
        record = self.record
        return {
            "inference_library": "ngvi",
            "inference_library_version": record["ngvi"],
            "model": record["model"],
            "verdict": record["verdict"]["level"],
            "elbo": number(record["diagnostics"]["elbo"]),
            "khat": number(record["diagnostics"]["khat"]),
            RECORD: json.dumps(record, allow_nan=False),
        }

    def to_arviz(self) -> Any:
        """The groups as ArviZ takes them: an InferenceData with ArviZ 0.x, a DataTree
        with 1.x. The record is JSON in the attribute "ngvi_record" of the root."""
        return as_arviz(self.groups, self._attrs())
