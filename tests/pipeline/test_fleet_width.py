"""`--preset auto`: a sample of symbols at each width, judged on `stop`; the run says what was chosen and why."""

import json

import pytest

import barcast
from barcast.core.errors import UsageError
from barcast.core.workspace import Workspace
from barcast.fleet.networks.ladder import WidthChoice
from barcast.pipeline import fleet_width
from barcast.pipeline.fleet_seen import fleet_run
from tests.journey.test_journey import DECLARED, run, write_market

SHORT = ["--look-back-window", "10", "--stretch-length", "20", "--batch-size", "80", "--epochs", "1",
         "--min-rows", "150", "--executor", "serial", "--no-report"]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("width")
    write_market(root / "bars", symbols=5, sessions=420)
    assert run("data", "import", root / "bars", "-w", root, *DECLARED) == 0
    return root


def test_the_width_is_chosen_once_recorded_and_counted(place, monkeypatch, capsys):
    monkeypatch.setattr(fleet_width, "presets", lambda kind: dict.fromkeys((f"{kind}-16", f"{kind}-32")))
    monkeypatch.setattr(fleet_width, "SAMPLE", 3)
    asked, real = [], fleet_width.choose_width

    def spied(fit, data, positions, rungs):
        asked.append((data.symbols, tuple(rungs)))
        found = real(fit, data, positions, rungs)
        assert set(found.scores) == set(rungs) and found.num_symbols == 3
        return WidthChoice("lstm-16", found.scores, found.num_symbols)

    monkeypatch.setattr(fleet_width, "choose_width", spied)
    for _ in range(2):
        assert run("fleet", "lstm", "--preset", "auto", "-w", place, *SHORT) == 0
    assert len(asked) == 1 and len(asked[0][0]) == 3
    said = capsys.readouterr().err
    assert "16: R2" in said and "the narrowest that none clearly beats" in said
    fleet = fleet_run(Workspace(place))
    assert fleet.read("config.json")["options"]["preset"] == "16"
    assert barcast.fleet_status(workspace=place).presets == {"lstm-16": 5}
    told = fleet.info["size_auto"]
    assert (told["size"], told["num_compared"], told["by"]) == ("16", 2, "--preset auto")
    assert (fleet.info["num_trials"], fleet.info["tuned_by"]) == (2, "--preset auto")
    assert "`--preset auto`" in (fleet.path / "card.md").read_text()
    assert run("fleet", "lstm", "--preset", "16", "-w", place, *SHORT) == 0
    assert fleet_run(Workspace(place)).name == fleet.name, "a width that is named is the same run"


def test_a_choice_that_is_not_whole_is_made_again(tmp_path):
    file = tmp_path / "width.json"
    assert fleet_width._known(file) is None
    for text in ("{", json.dumps({"preset": "lstm-16"})):
        file.write_text(text)
        assert fleet_width._known(file) is None
    file.write_text(json.dumps({"preset": "lstm-16", "scores": {"lstm-16": 0.1}, "num_symbols": 2}))
    assert fleet_width._known(file).preset == "lstm-16"


@pytest.mark.parametrize(
    ("more", "said"), [({"hidden_size": 8}, "chooses the width"), ({"min_rows": 9000}, "no symbol has")]
)
def test_auto_beside_what_it_cannot_choose_is_refused(place, more, said):
    with pytest.raises(Exception, match=said):
        barcast.train_fleet(kind="lstm", workspace=place, preset="auto", report=False, **more)
    with pytest.raises(UsageError, match="one preset"):
        barcast.tune_symbol("SYM01", "fleet-lstm", workspace=place, preset="auto")


def test_a_dry_run_compares_no_widths(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fleet_width, "presets", lambda kind: dict.fromkeys((f"{kind}-16", f"{kind}-32")))
    monkeypatch.setattr(fleet_width, "_choose", lambda *_: pytest.fail("widths were compared"))
    (tmp_path / "auto.toml").write_text('[fleet-lstm]\npreset = "auto"\n')
    assert run("fleet", "lstm", "--preset", "auto", "--seed", "3", "-w", place, *SHORT, "--dry-run") == 0
    assert run("train", "fleet-lstm", "--config", tmp_path / "auto.toml", "-w", place, "--dry-run") == 0
    assert capsys.readouterr().err.count("this is for the widest, 32") == 2
    assert fleet_run(Workspace(place)).read("config.json")["options"]["preset"] == "32"
