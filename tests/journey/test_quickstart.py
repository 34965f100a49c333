"""The first command a newcomer runs, twice."""

import importlib.util
import json

import pytest

from barcast.cli.app import _run
from barcast.core.predictions import read_predictions
from barcast.core.runs import list_runs
from barcast.core.workspace import Workspace


@pytest.mark.skipif(
    importlib.util.find_spec("bokeh_sampledata") is None,
    reason="the sample bars are not installed: pip install 'barcast[sample]'",
)
def test_quickstart_keeps_the_test_sealed_and_its_second_call_finds_the_run_again(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert _run(["quickstart"], debug=False) == 0
    first = capsys.readouterr()
    runs = list_runs(Workspace(tmp_path / "quickstart"))
    lstm = next(run for run in runs if run.info["model"] == "lstm" and not run.info.get("final"))
    assert not (tmp_path / "quickstart" / "seals.json").exists()
    assert read_predictions(lstm.predictions).filter(segment="test")["y"].null_count() > 1000
    assert "Segment route:" in first.out and "Segment test:" not in first.out
    assert f"barcast compare {lstm.name} --open-test -w quickstart   # " in first.out
    page = (lstm.path / "report.html").read_text(encoding="utf-8")
    data = json.loads(page.split('id="report-data">')[1].split("</script>")[0])
    assert [c["title"] for c in data["comparisons"]] == [
        {"en": "route, all rows", "zh": "路由段（route），全部样本"}
    ]
    assert data["comparisons"][0]["rows"][0]["name"] == {"en": "zero", "zh": "零预测"}
    assert data["test_openings"] == 0 and data["predictions"]["length"] == 5
    fleet, routed = (
        next(run for run in runs if run.info["model"] == model and not run.info.get("final"))
        for model in ("fleet-trees", "routed")
    )
    (short,) = [line for line in first.out.splitlines() if "FB" in line and "universal" in line]
    assert "too short: 0 of 500 training rows" in short
    for run in (lstm, fleet, routed):
        assert str(run.path / "report.html") in first.out and (run.path / "report.html").is_file()
    assert _run(["quickstart"], debug=False) == 0
    again = capsys.readouterr()
    assert f"{lstm.name} is there already" in again.err and again.out == first.out
    assert [run.name for run in list_runs(Workspace(tmp_path / "quickstart"))] == [run.name for run in runs]
    assert _run(["compare", "--open-test", "-w", "quickstart"], debug=False) == 0
    assert "was opened once; each look" in capsys.readouterr().out
