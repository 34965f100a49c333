"""Compiled kernels rest in a folder that only their user can write, or nowhere."""

import os
import stat
import subprocess
import sys

from barcast.core.compilation import private_folder

SHOW = (
    "from barcast.core import compilation as c; import numba, os;"
    "print(c.CACHED, numba.config.CACHE_DIR, os.environ.get('NUMBA_CACHE_DIR'))"
)


def show(code=SHOW, **environment):
    kept = {
        key: value for key, value in os.environ.items() if key not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
    }
    kept["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code], env={**kept, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.split(), done.stderr


def test_default_folder_is_private(tmp_path):
    words, _ = show(XDG_CACHE_HOME=str(tmp_path))
    folder = tmp_path / "barcast" / "numba"
    assert words == ["True", str(folder), str(folder)]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_of_the_users_choice_stays(tmp_path):
    chosen = tmp_path / "chosen"
    words, _ = show(NUMBA_CACHE_DIR=str(chosen), XDG_CACHE_HOME=str(tmp_path))
    assert words == ["True", str(chosen), str(chosen)]
    assert not (tmp_path / "barcast").exists()


def test_numba_that_was_imported_before_is_pointed_there_too(tmp_path):
    words, _ = show("import numba;" + SHOW, XDG_CACHE_HOME=str(tmp_path))
    assert words[1] == str(tmp_path / "barcast" / "numba")


def test_without_a_folder_kernels_work_uncached(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    code = (
        "import numpy as np; from barcast.core import compilation; from barcast.features import kernels;"
        "print(compilation.CACHED, len(kernels.ratio.signatures), kernels.ratio(*np.ones((2, 2))).sum())"
    )
    words, told = show(code, NUMBA_CACHE_DIR=str(blocked))
    assert words == ["False", "0", "2.0"]  # and nothing is compiled before it is called
    assert "compiled anew in each process" in told
    assert show(XDG_CACHE_HOME=str(blocked))[0][0] == "False"


def test_an_open_folder_is_closed_and_a_foreign_one_refused(tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)
    assert private_folder(shared) == shared
    assert stat.S_IMODE(shared.stat().st_mode) == 0o700
    monkeypatch.setattr(os, "geteuid", lambda: shared.stat().st_uid + 1)
    assert private_folder(shared) is None


def test_a_full_disk_is_noticed(tmp_path, monkeypatch):
    import tempfile

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert private_folder(tmp_path / "new") is None
