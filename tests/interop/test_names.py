"""What others may rely on: the names of ``acclimate.interop``, and that what they need is asked for."""

import subprocess
import sys

import pytest

from acclimate import interop
from acclimate.errors import MissingExtraError

NAMES = ["GLMixClassifier", "read_photon", "write_photon"]
NEEDED = {
    "GLMixClassifier": ("sklearn", "sklearn", ["classifier"]),
    "read_photon": ("fastavro", "avro", ["photon_files", "photon"]),
    "write_photon": ("fastavro", "avro", ["photon_files", "photon"]),
}


def test_the_names():
    assert interop.__all__ == NAMES
    assert dir(interop) == sorted(NAMES)
    for name in NAMES:
        thing = getattr(interop, name)
        assert thing.__name__ == name
        assert len(thing.__doc__) > 100
    with pytest.raises(AttributeError, match=r"module 'acclimate.interop' has no attribute 'GLMix'"):
        interop.GLMix  # noqa: B018


@pytest.mark.parametrize("name", NAMES)
def test_without_its_library_a_name_says_what_to_install(name, monkeypatch):
    library, extra, modules = NEEDED[name]
    for loaded in [key for key in sys.modules if key.partition(".")[0] == library]:
        monkeypatch.setitem(sys.modules, loaded, None)
    monkeypatch.setitem(sys.modules, library, None)
    for module in modules:
        monkeypatch.delitem(sys.modules, f"acclimate.interop.{module}", raising=False)
        monkeypatch.delattr(interop, module, raising=False)
    with pytest.raises(MissingExtraError) as error:
        getattr(interop, name)
    assert str(error.value) == (
        f"{library} is not installed, and {modules[-1]} needs it (pip install 'acclimate[{extra}]')"
    )


def test_the_package_itself_loads_neither():
    code = "import sys, acclimate.interop\nprint(*{m.partition('.')[0] for m in sys.modules})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert "acclimate" in loaded
    assert not loaded & {"sklearn", "fastavro", "scipy", "numba", "pyarrow"}
