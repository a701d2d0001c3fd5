"""A data file as the arguments of a model: JSON, CSV or npz.

Numbers become arrays, or Python numbers where they stand alone, since a model may need
those for a shape. What is missing (an empty cell, NA, null) becomes NaN.
"""

from __future__ import annotations

import csv
import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ngvi.cli.errors import InputError, in_words

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "."})
BOOLEAN = {"true": True, "false": False}
SEPARATORS = ",;\t"


def read(path: Path) -> dict[str, Any]:
    """Read a data file.

    Args:
        path: ends in .json (an object), .csv (a header and at least one row) or .npz.

    Returns:
        The model's arguments by name.

    Raises:
        InputError: the file is not there, cannot be read, or holds something that is
            not a number; the message names the key, or the column and row.
    """
    readers = {".json": _json, ".csv": _csv, ".npz": _npz}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"--data {path}: expected a file in .json, .csv or .npz.")
    if not path.exists():
        raise InputError(f"--data {path}: there is no such file.")
    try:
        data = reader(path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file in UTF-8 ({error}).") from error
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}."
        ) from error
    if not data:
        raise InputError(f"{path} holds nothing: no name, no number.")
    return data


def described(data: dict[str, Any]) -> str:
    """Shapes and undefined values in a sentence, for a model that failed on them."""
    if not data:
        return ""
    parts = []
    for name, value in data.items():
        if not np.ndim(value) or isinstance(value, dict):
            parts.append(f"{name} = {value!r}")
            continue
        array = np.asarray(value)
        bad = int((~np.isfinite(array)).sum()) if array.dtype.kind == "f" else 0
        undefined = f" with {bad} NaN or infinite" if bad else ""
        parts.append(f"{name} {array.shape}{undefined}")
    return f"The data: {', '.join(parts)}."


# -- JSON ------------------------------------------------------------------------------


def _json(path: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise InputError(f"{path}: the key {twice[0]!r} is there twice.")
        return dict(pairs)

    text = path.read_text(encoding="utf-8-sig")
    try:
        content = json.loads(text, object_pairs_hook=unique)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        kind = "a list" if isinstance(content, list) else repr(content)
        raise InputError(
            f"{path}: expected an object that maps the model's arguments to values, "
            f'such as {{"y": [1.5, 2.0]}}; found {kind}.'
        )
    return {name: _json_value(path, name, value) for name, value in content.items()}


def _json_value(path: Path, name: str, value: Any) -> Any:
    if isinstance(value, dict):
        items = value.items()
        return {key: _json_value(path, f"{name}.{key}", entry) for key, entry in items}
    return _array(path, name, value) if isinstance(value, list) else value


def _array(path: Path, name: str, value: list[Any]) -> np.ndarray:
    try:
        array = np.asarray(_with_nan(value))
    except ValueError as error:
        raise InputError(
            f"{path}: the rows of {name!r} differ in length, so it is no array."
        ) from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{path}: {name!r} must hold numbers only.")
    return array


def _with_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_nan(entry) for entry in value]
    return np.nan if value is None else value


# -- CSV -------------------------------------------------------------------------------


def _csv(path: Path) -> dict[str, Any]:
    # A byte-order mark, as spreadsheets write one, is no part of the first name.
    with path.open(newline="", encoding="utf-8-sig") as file:
        first = file.readline()
        file.seek(0)
        separator = next((s for s in SEPARATORS if s in first), ",")
        reader = csv.reader(file, delimiter=separator, skipinitialspace=True)
        try:
            rows = [(reader.line_num, row) for row in reader if row]
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: {error}.") from error
    if not rows:
        raise InputError(f"{path} is empty: expected a header and rows of numbers.")
    header = _header(path, rows[0][1])
    if len(rows) == 1:
        raise InputError(f"{path} has a header but no row of data.")
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise InputError(
                f"{path}, line {line}: expected {len(header)} cells as in the header, "
                f"found {len(row)}."
            )
    lines = [line for line, _ in rows[1:]]
    columns = zip(*(row for _, row in rows[1:]), strict=True)
    return {
        name: _column(path, name, column, lines)
        for name, column in zip(header, columns, strict=True)
    }


def _header(path: Path, cells: Sequence[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    for number, name in enumerate(names, 1):
        if not name:
            raise InputError(
                f"{path}: column {number} has no name in the header. (With pandas, "
                "write the file with to_csv(..., index=False).)"
            )
        if names.count(name) > 1:
            raise InputError(f"{path}: two columns are called {name!r}.")
    if all(_number(name) is not None for name in names):
        raise InputError(
            f"{path}: the first line holds numbers, not names. Add a header that names "
            "the model's argument of each column."
        )
    return names


def _column(
    path: Path, name: str, cells: Sequence[str], lines: Sequence[int]
) -> np.ndarray:
    values = [_number(cell) for cell in cells]
    for value, cell, line in zip(values, cells, lines, strict=True):
        if value is None:
            raise InputError(
                f"{path}, line {line}: column {name!r} holds {cell.strip()!r}, which "
                "is not a number. Code categories as 0, 1, 2, …"
            )
    return np.array(values)


def _number(cell: str) -> bool | int | float | None:
    """A cell as the narrowest number it is; None for text."""
    text = cell.strip().lower()
    if text in MISSING:
        return float("nan")
    if text in BOOLEAN:
        return BOOLEAN[text]
    # Python would read 1_000 as a number; a table does not.
    if "_" in text:
        return None
    try:
        whole = int(text)
        # Beyond 64 bits only a float can hold it.
        return whole if abs(whole) < 2**63 else float(whole)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return None


# -- npz -------------------------------------------------------------------------------


def _npz(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise InputError(f"{path} is not a whole npz file; np.savez writes one.")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: _npz_value(path, name, arrays) for name in arrays.files}
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {in_words(error)}.") from error


def _npz_value(path: Path, name: str, arrays: Any) -> Any:
    try:
        array = arrays[name]
    except ValueError as error:
        # numpy holds anything but numbers as pickles, which could run code.
        raise InputError(f"{path}: {name!r} does not hold numbers.") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise InputError(f"{path}: {name!r} does not hold numbers.")
    # savez turns a plain number into an array without axes.
    return array.item() if array.ndim == 0 else array
