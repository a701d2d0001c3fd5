"""Data files: what each format becomes, and what is said about a bad one."""

import json

import numpy as np
import pytest

from ngvi.cli.data_files import described, read
from ngvi.cli.errors import InputError


@pytest.fixture
def write(tmp_path):
    """Write a file; its path."""

    def write(name, content):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content, encoding="utf-8")
        return path

    return write


def assert_array(value, expected, kind):
    assert isinstance(value, np.ndarray)
    assert value.dtype.kind == kind
    np.testing.assert_array_equal(value, expected)


def test_json_keeps_numbers_and_makes_arrays_of_lists(write):
    content = {"n": 3, "scale": 0.5, "flag": True, "y": [1, 2], "x": [[1, 2.5], [3, 4]]}
    data = read(write("a.json", json.dumps(content)))
    assert data["n"] == 3 and type(data["n"]) is int
    assert data["scale"] == 0.5 and data["flag"] is True
    assert_array(data["y"], [1, 2], "i")
    assert_array(data["x"], [[1, 2.5], [3, 4]], "f")


def test_json_null_in_a_list_is_missing_and_alone_is_none(write):
    data = read(write("a.json", '{"y": [1, null, NaN], "z": null}'))
    assert_array(data["y"], [1, np.nan, np.nan], "f")
    assert data["z"] is None


def test_json_objects_nest(write):
    data = read(write("a.json", '{"x": {"a": [1, 2], "b": 3}}'))
    assert_array(data["x"]["a"], [1, 2], "i")
    assert data["x"]["b"] == 3


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_columns_are_arrays_by_name(write, separator):
    lines = ["count, price ,flag,missing", "1,0.5,true,NA", "-2,1e3,False,", ""]
    data = read(write("a.CSV", "\n".join(lines).replace(",", separator)))
    assert list(data) == ["count", "price", "flag", "missing"]
    assert_array(data["count"], [1, -2], "i")
    assert_array(data["price"], [0.5, 1000.0], "f")
    assert_array(data["flag"], [True, False], "b")
    assert_array(data["missing"], [np.nan, np.nan], "f")


def test_csv_of_a_spreadsheet(write):
    # A byte-order mark, Windows' line ends, quotes, a whole number beyond 64 bits.
    data = read(write("a.csv", b'\xef\xbb\xbf"x"\r\n"1"\r\n' + b"9" * 20 + b"\r\n"))
    assert_array(data["x"], [1.0, 1e20], "f")


def test_npz_arrays_by_name_and_plain_numbers_as_such(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, y=np.arange(3.0), n=3, flag=np.array([True]))
    data = read(path)
    assert_array(data["y"], [0.0, 1.0, 2.0], "f")
    assert_array(data["flag"], [True], "b")
    assert data["n"] == 3 and type(data["n"]) is int


BAD = [
    ("a.txt", "x", r"a\.txt: expected a file in \.json, \.csv or \.npz"),
    ("a.json", '{"y": [1,', r"a\.json is not valid JSON: .*line 1"),
    ("a.json", "", "not valid JSON"),
    ("a.json", "[" * 100_000, "not valid JSON"),
    ("a.json", "[1, 2]", "found a list"),
    ("a.json", "3", "found 3"),
    ("a.json", "{}", "holds nothing"),
    ("a.json", '{"y": [1], "y": [2]}', "the key 'y' is there twice"),
    ("a.json", '{"y": [[1, 2], [3]]}', "rows of 'y' differ in length"),
    ("a.json", '{"y": ["a", "b"]}', "'y' must hold numbers only"),
    ("a.json", '{"x": {"y": [{}]}}', "'x.y' must hold numbers only"),
    ("a.json", b"\xff\xfe", "UTF-8"),
    ("a.csv", "", "is empty"),
    ("a.csv", "\n\n", "is empty"),
    ("a.csv", "x,y\n", "no row of data"),
    ("a.csv", "1,2\n3,4\n", "holds numbers, not names"),
    ("a.csv", ",y\n0,4\n", "column 1 has no name"),
    ("a.csv", "y,y\n0,4\n", "two columns are called 'y'"),
    ("a.csv", "x,y\n1,2\n\n1,2,3\n", "line 4: expected 2 cells .*, found 3"),
    ("a.csv", "x,y\n1,2\n1\n", "line 3: expected 2 cells .*, found 1"),
    ("a.csv", "x,y\n1,2\n3,red\n", "line 3: column 'y' holds 'red'"),
    ("a.csv", "x\n1_000\n", "column 'x' holds '1_000'"),
    ("a.csv", b"x\n\xff\n", "UTF-8"),
    ("a.npz", "junk", "not a whole npz file"),
    ("a.npz", b"", "not a whole npz file"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_a_bad_file_is_explained(write, name, content, message):
    with pytest.raises(InputError, match=message):
        read(write(name, content))


def test_a_missing_file_and_a_folder_are_explained(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "a.csv")
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read(tmp_path / "b.csv")


@pytest.mark.parametrize("array", [np.array([{}]), np.array(["a"]), np.array([1j])])
def test_an_npz_file_of_anything_but_numbers_is_refused(tmp_path, array):
    np.savez(tmp_path / "a.npz", x=array)
    with pytest.raises(InputError, match="'x' does not hold numbers"):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize("keep", [0.3, 0.95])
def test_a_cut_npz_file_is_explained(tmp_path, keep):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(100.0))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(InputError, match="not a whole npz file"):
        read(path)


def test_a_damaged_npz_file_is_explained(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.arange(100.0))
    damaged = bytearray(path.read_bytes())
    damaged[60:90] = b"\0" * 30
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"a\.npz"):
        read(path)


def test_data_in_words():
    assert described({}) == ""
    data = {"n": 3, "y": np.array([1.0, np.nan]), "z": [[1, 2]], "m": {"a": 1}}
    text = described(data)
    assert text.startswith("The data: n = 3, y (2,) with 1 NaN or infinite, z (1, 2)")
