"""The example runs as its first lines say, twice in the same folder, and shows what it promises."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from barcast.core.runs import list_runs
from barcast.core.workspace import Workspace

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_and_predict.py"


@pytest.mark.skipif(
    importlib.util.find_spec("bokeh_sampledata") is None,
    reason="the sample bars are not installed: pip install 'barcast[sample]'",
)
def test_the_example_goes_from_the_sample_to_a_forecast(tmp_path):
    command = [sys.executable, "-W", "error", str(EXAMPLE), str(tmp_path / "ws")]
    first = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "5 symbols, 12154 bars" in first.stdout
    assert "Against the best naive row" in first.stdout
    assert "as of 2013-03-01, to the close of 2013-03-11" in first.stdout
    assert all(symbol in first.stdout for symbol in ("AAPL", "FB", "GOOG", "IBM", "MSFT"))
    runs = list_runs(Workspace(tmp_path / "ws"))
    assert sorted(bool(run.info.get("final")) for run in runs) == [False, True]
    assert all(run.is_done for run in runs)

    again = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert again.stdout in first.stdout  # all but the line of the import: the runs were found again
    assert len(list_runs(Workspace(tmp_path / "ws"))) == len(runs)
