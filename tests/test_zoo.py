"""The zoo: every file of it is a model with data, and the loader explains itself."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from numpyro import handlers

from ngvi import zoo


@pytest.fixture
def small_zoo(tmp_path, monkeypatch):
    """A zoo in a folder of its own, to put files in."""
    monkeypatch.setattr(zoo, "folder", lambda: tmp_path)
    zoo.load.cache_clear()
    yield tmp_path
    zoo.load.cache_clear()
    for name in [n for n in sys.modules if n.startswith("ngvi.models.")]:
        del sys.modules[name]


def write(folder: Path, name: str, body: str = "") -> None:
    text = f'"""Title of {name}.\n\nMore."""\nSOURCE = "here"\nLICENSE = "free"\n{body}'
    (folder / f"{name}.py").write_text(text, encoding="utf-8")


def test_there_are_models():
    assert "eight_schools" in zoo.names()
    assert list(zoo.names()) == sorted(zoo.names())


@pytest.mark.parametrize("name", zoo.names())
def test_every_model_is_whole(name):
    found = zoo.load(name)
    assert found.name == name
    assert found.title == zoo.title(name)
    assert found.title.endswith(".") and "\n" not in found.title
    assert found.source and found.license
    assert found.model.__name__ == name


@pytest.mark.parametrize("name", zoo.names())
def test_every_model_fits_its_data(name):
    """A run of the model on its data: every observed value has its site's shape."""
    found = zoo.load(name)
    data = found.data()
    for value in data.values():
        assert isinstance(value, np.ndarray | int)
        assert np.isfinite(value).all()
    shapes = {}

    def run(key: jax.Array) -> None:
        seeded = handlers.seed(found.model, key)
        for site_name, site in handlers.trace(seeded).get_trace(**data).items():
            if site["type"] == "sample" and site["is_observed"]:
                shapes[site_name] = np.shape(site["value"]), site["fn"].shape()
            elif site["type"] == "sample":
                latent.append(site_name)

    latent: list[str] = []
    # Shapes alone: nothing is compiled.
    jax.eval_shape(run, jax.random.key(0))
    assert latent and shapes
    for site_name, (value, expected) in shapes.items():
        assert value == expected == np.shape(data[site_name])


def test_a_second_load_is_the_first():
    assert zoo.load("eight_schools") is zoo.load("eight_schools")


@pytest.mark.parametrize("ask", [zoo.load, zoo.title, zoo.path])
def test_an_unknown_name_is_answered_with_near_ones(ask):
    with pytest.raises(zoo.UnknownModel, match="Did you mean eight_schools"):
        ask("eight_scools")


def test_an_unknown_name_far_from_all_is_answered_with_the_list():
    with pytest.raises(KeyError) as caught:
        zoo.load("zzzzzz")
    assert str(caught.value).startswith("There is no model 'zzzzzz' in the zoo.")
    assert all(name in str(caught.value) for name in zoo.names())


def test_a_title_is_read_without_running_the_file(small_zoo):
    write(small_zoo, "dangerous", "raise RuntimeError('run')")
    assert zoo.names() == ("dangerous",)
    assert zoo.title("dangerous") == "Title of dangerous."
    with pytest.raises(RuntimeError, match="run"):
        zoo.load("dangerous")
    assert "ngvi.models.dangerous" not in sys.modules


def test_private_files_are_no_models(small_zoo):
    write(small_zoo, "_helpers")
    (small_zoo / "notes.txt").touch()
    assert zoo.names() == ()


def test_a_missing_package_of_the_data_says_what_to_install(small_zoo):
    body = "def model(): pass\ndef data():\n    import no_such_package.datasets\n"
    write(small_zoo, "needy", body)
    message = r"'needy' needs no_such_package.*pip install 'ngvi\[zoo\]'"
    with pytest.raises(ImportError, match=message):
        zoo.load("needy").data()


def test_a_missing_package_of_the_file_says_what_to_install(small_zoo):
    write(small_zoo, "needier", "import no_such_package\n")
    with pytest.raises(ImportError, match=r"pip install 'ngvi\[zoo\]'"):
        zoo.load("needier")


def test_an_installation_without_the_folder_says_so(tmp_path, monkeypatch):
    # As installed: the package's parent folder is not a checkout, whatever it holds.
    package = tmp_path / "ngvi"
    package.mkdir()
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(zoo, "__file__", str(package / "zoo.py"))
    with pytest.raises(FileNotFoundError, match="zoo is missing"):
        zoo.folder()
    (package / "models").mkdir()
    assert zoo.folder() == package.resolve() / "models"
