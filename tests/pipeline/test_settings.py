"""Nothing that was asked is ignored: unknown tables, keys, flags and devices are refused, with where they stand."""

from dataclasses import replace

import pytest

from barcast.core.atomic import write_json
from barcast.core.config import digest
from barcast.core.errors import UsageError
from barcast.core.workspace import Workspace
from barcast.features import user_feature_sets
from barcast.pipeline.market import quality_policy
from barcast.pipeline.settings import check_workspace, resolve


def refused(place, model="lstm", flags=None, file=None):
    with pytest.raises(UsageError) as caught:
        resolve(Workspace(place), model, flags, file)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "found", "todo"),
    [
        ("[trian]\nepochs = 3", "nothing reads `trian`", "did you mean `train`?"),
        ("[lstn]\nhidden_size = 3", "nothing reads `lstn`", "did you mean `lstm`?"),
        ("epochs = 3", "nothing reads `epochs`", "it is a key of the table [train]"),
        ("[train]\nepoch = 3", "train: unknown key `epoch`", "did you mean `epochs`?"),
        ("[train]\nepochs = 'x'", "train.epochs: expected int", ""),
        ("[train]\nepochs = true", "train.epochs: expected int, found `True`", "write a whole number"),
        ("[train]\nlr = nan", "train.lr: `nan` is no finite number", "write a number"),
        ("[data]\nquality = 'x'", "data.quality: expected a table, found `'x'`", "NAME = VALUE"),
        ("[data]\nquality = {hole = 3}", "data.quality.hole: expected str", "quotation marks"),
        ("seed = -1", "seed: expected a whole number", "0 or more"),
        ("[train]\nseed = 3", "`seed` is of the whole run", "put it above the tables: seed = 1"),
        ("[lstm]\nwidth = 3", "lstm: unknown key `width`", "known: hidden_size"),
        ("train = 3", "train: expected a table", ""),
    ],
)
def test_settings_that_nothing_reads_are_refused_with_their_file(tmp_path, text, found, todo):
    (tmp_path / "barcast.toml").write_text(text)
    own = refused(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "wide.toml").write_text(text)
    given = refused(tmp_path / "elsewhere", file=tmp_path / "wide.toml")
    for message, file in ((own, "barcast.toml"), (given, "wide.toml")):
        assert f"{tmp_path / file}: " in message and found in message and todo in message


@pytest.mark.parametrize("text", ["[qualiti]\nhole = 'mask'", "[features]\nfile = ['a.py']", "quality = 3"])
def test_every_verb_that_reads_settings_checks_them(tmp_path, text):
    (tmp_path / "barcast.toml").write_text(text)
    for verb in (check_workspace, lambda place: quality_policy(place, {})):
        with pytest.raises(UsageError, match=r"barcast\.toml: "):
            verb(Workspace(tmp_path))


def test_known_tables_are_no_mistake(tmp_path):
    (tmp_path / "barcast.toml").write_text(
        "seed = 3\n[data]\n[train]\nepochs = 9\n[lstm]\n[ridge]\n[lightgbm]\n[quality]\n[features]\nfiles = []\n"
    )
    place = Workspace(tmp_path)
    assert resolve(place, "lstm").train.epochs == 9
    ridge = resolve(place, "ridge")  # [train] is for the networks that share the file
    assert (ridge.seed, ridge.train) == (3, None)
    assert user_feature_sets(place) == ()


def test_what_belongs_to_the_workspace_is_not_read_from_a_config_file(tmp_path):
    (tmp_path / "c.toml").write_text("[quality]\nhole = 'mask'")
    assert "put it into its barcast.toml" in refused(tmp_path, file=tmp_path / "c.toml")


@pytest.mark.parametrize(
    ("model", "flags"),
    [
        ("ridge", {"epochs": 3}),
        ("ridge", {"device": "cpu"}),
        ("lightgbm", {"amp": "off"}),
        ("lightgbm", {"hidden_size": 8}),
    ],
)
def test_a_flag_that_the_model_would_ignore_is_refused(tmp_path, model, flags):
    message = refused(tmp_path, model, flags)
    assert f"`{next(iter(flags))}` is not an option of model `{model}`" in message
    assert "models that take it: gru, lstm" in message


@pytest.mark.parametrize(
    ("model", "flags", "found", "todo"),
    [
        ("lstm", {"lr": float("nan")}, "train.lr: `nan` is no finite number", "write a number"),
        ("lstm", {"lr": -0.1}, "`lr` must be positive, got -0.1", "table [train]"),
        ("lstm", {"clip": 0.0}, "`clip` must be positive, got 0.0", "table [train]"),
        ("lstm", {"warmup": 1.0}, "`warmup` must be in [0, 1), got 1.0", "table [train]"),
        ("lstm", {"jitter": -0.5}, "`jitter` must be 0 or more, got -0.5", "table [train]"),
        ("lstm", {"time_warp": 11}, "`time_warp` must be in 0 .. 10, got 11", "table [train]"),
        ("lstm", {"feature_dropout": 1.0}, "`feature_dropout` must be in [0, 1), got 1.0", "table [train]"),
        ("lstm", {"threads": -1}, "`threads` must be 0 or more, got -1", "table [train]"),
        ("lstm", {"dropout": 1.0}, "`dropout` must be in [0, 1), got 1.0", "the model's table"),
        ("lstm", {"hidden_size": 0}, "`hidden_size` must be at least 1, got 0", "the model's table"),
        ("lstm", {"size": "huge"}, "has no size `huge`", "large or auto"),
        ("ridge", {"limit": -3}, "`limit` must be 0 or more, got -3\n", "nothing is limited"),
        ("ridge", {"hold_out_fold": 20}, "`hold_out_fold` must be -1 or 0 .. 19, got 20\n", "is held out"),
        ("ridge", {"penalties": []}, "[ridge] `penalties` must be one number or more", "penalties = ["),
        ("lightgbm", {"num_rounds": 0}, "[lightgbm] `num_rounds` must be at least 1, got 0", "the default"),
        ("lightgbm", {"feature_fraction": 2.0}, "[lightgbm] `feature_fraction` must be in (0, 1]", "default"),
    ],
)
def test_values_that_make_no_sense_are_refused_with_the_remedy(tmp_path, model, flags, found, todo):
    message = refused(tmp_path, model, flags)
    assert found in message and todo in message


def test_a_run_is_told_by_what_shapes_its_result(tmp_path):
    """How often it is saved, and how many threads were measured to be fastest, do not."""
    (tmp_path / "c.toml").write_text("[train]\ncheckpoint_seconds = 5.0")
    plain = resolve(Workspace(tmp_path), "lstm")
    saved_often = resolve(Workspace(tmp_path), "lstm", file=tmp_path / "c.toml")
    told = resolve(Workspace(tmp_path), "lstm", {"threads": 2})
    assert saved_often.train.checkpoint_seconds == 5.0
    assert plain.identity() == saved_often.identity()
    assert "threads" not in plain.identity()["train"]
    assert told.identity()["train"]["threads"] == 2


@pytest.mark.parametrize(
    ("model", "name"),
    [("lstm", "da557b3b64ba3dc3"), ("gru", "54b0c7956dd17ef3"), ("mlp", "2383eab3ae2679c4"),
     ("transformer", "19808ff69b9af92c"), ("ridge", "c86cb234a0901ef4"), ("lightgbm", "a2699b1150a0fa25")],
)  # fmt: skip
def test_a_run_of_defaults_keeps_its_name_whatever_options_are_added(tmp_path, model, name):
    """Options that came later than these names count only where they are not at their defaults."""
    assert digest(resolve(Workspace(tmp_path), model).identity()) == name
    if model == "lstm":
        for option in (
            {"panel_memory_gib": 0.5},
            {"num_seeds": 2},
            {"jitter": 0.1},
            {"static": ("industry",)},
        ):
            assert digest(resolve(Workspace(tmp_path), model, option).identity()) != name


def test_what_can_be_known_without_data_is_refused_at_once(tmp_path):
    assert "did you mean `lstm`?" in refused(tmp_path, "lstn")
    assert "there is no device `cuda:99`" in refused(tmp_path, flags={"device": "cuda:99"})
    assert "amp: `fp8` is not one of auto, bf16, fp16, off" in refused(tmp_path, flags={"amp": "fp8"})


@pytest.mark.parametrize(
    ("flags", "lr"),
    [
        ({}, 3e-3),
        ({"hidden_size": 16}, 3e-3),
        ({"hidden_size": 640}, 3e-4),
        ({"size": "small"}, 1.1e-3),  # 176 wide
        ({"size": "small", "lr": 5e-3}, 5e-3),
    ],
)
def test_a_wider_network_learns_at_a_lower_rate_unless_told(tmp_path, flags, lr):
    assert resolve(Workspace(tmp_path), "lstm", flags).train.lr == lr


def test_a_rate_of_the_settings_file_holds_for_any_width(tmp_path):
    (tmp_path / "barcast.toml").write_text("[train]\nlr = 0.002\n", encoding="utf-8")
    assert resolve(Workspace(tmp_path), "lstm", {"size": "large"}).train.lr == 0.002


@pytest.mark.parametrize(
    ("model", "flags"),
    [("lstm", {"clip": 0.5, "hidden_size": 16, "horizons": (1, 5), "seed": 3, "quality": {"hole": "mask"}}),
     ("ridge", {"penalties": (0.5, 1.0), "features": "core12"})],
)  # fmt: skip
def test_a_runs_config_is_a_settings_file_with_the_search_behind_it(tmp_path, model, flags):
    """What the workspace says by then does not reach it, not even where the run knew no such option yet."""
    asked, run = resolve(Workspace(tmp_path), model, flags), tmp_path / "runs" / f"{model}-1"
    run.mkdir(parents=True)
    plain = asked.plain()
    if asked.train:
        del plain["train"]["jitter"]
    write_json(run / "config.json", plain)
    write_json(run / "run.json", {"model": model, "num_trials": 7, "tuned_by": f"tune-{model}-1"})
    (tmp_path / "barcast.toml").write_text(
        "seed = 9\n[data]\ndelay = 2\n[train]\njitter = 0.1\nclip = 2.0\n[lstm]\nnum_layers = 1\n"
        "[ridge]\npenalties = [3.0]\n"
    )
    again = resolve(Workspace(tmp_path), model, file=run / "config.json")
    assert again.plain() == asked.plain()
    assert (again.tuned.run, again.tuned.trials) == (f"tune-{model}-1", 7)
    more = resolve(Workspace(tmp_path), model, {"delay": 4}, run / "config.json")
    assert more == replace(again, data=replace(again.data, delay=4))
    assert f"for {model}, not gru" in refused(tmp_path, "gru", file=run / "config.json")


def test_other_json_is_no_settings_file(tmp_path):
    write_json(tmp_path / "config.json", {})
    write_json(tmp_path / "other.json", {})
    for name in ("config.json", "other.json", "missing.json"):
        message = refused(tmp_path, file=tmp_path / name)
        assert f"{name} is no config.json of a run" in message and "name a TOML file" in message
