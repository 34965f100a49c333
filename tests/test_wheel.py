"""What users install holds everything that runs: modules, the pages' templates and scripts, the typing mark."""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None,
    reason="the build backend is not installed: pip install hatchling",
)
def test_the_wheel_holds_everything(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "src"
    here = {
        path.relative_to(package).as_posix()
        for path in (package / "barcast").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in held if ".dist-info/" not in name} == here
    assert "barcast/py.typed" in held
    for folder, suffix in (
        ("templates", ".j2"),
        ("templates", ".css"),
        ("vendor", ".js"),
        ("vendor", ".txt"),
    ):
        assert any(n.startswith(f"barcast/reports/{folder}/") and n.endswith(suffix) for n in held), folder
    entry = next(name for name in held if name.endswith("entry_points.txt"))
    assert "barcast = barcast.cli.app:main" in zipfile.ZipFile(wheel).read(entry).decode()
