"""Features in a user's own files: found, tried, refused with a word that helps."""

import subprocess
import sys

import numpy as np
import pytest

from barcast.core.errors import DataError, LeakError, UsageError
from barcast.core.workspace import Workspace
from barcast.features import (
    build_panel,
    check_causal,
    compute_features,
    feature_set,
    load_user_features,
    user_feature_sets,
)
from tests.conftest import make_bars

GOOD = '''
"""Two features."""
import numpy as np
from barcast.features import feature
from barcast.features.primitives import highest, lag, mean

def helper(x):
    return x - 1

@feature
def over_mean_20(close):
    return close / mean(close, 20) - 1

@feature(formula="C / max(C, 250) - 1", source="52-week high")
def from_high_250(close):
    return helper(close / highest(close, 250))

@feature(warmup=1)
def up(close):
    return (close > lag(close, 1)).astype(float)

@feature
def twice(over_mean_20):
    return 2 * over_mean_20
'''
HEAD = "from barcast.features import feature\nfrom barcast.features.primitives import *\nimport numpy as np\n"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "my_features.py"


def load(file, text):
    file.write_text(text, encoding="utf-8")
    return load_user_features([file])[0]


def test_a_file_becomes_a_set(file):
    made = load(file, GOOD)
    assert made.name == "my_features" and made.names == ("over_mean_20", "from_high_250", "up", "twice")
    assert [f.formula for f in made.features] == [
        "close / mean(close, 20) - 1",
        "C / max(C, 250) - 1",
        "(close > lag(close, 1)).astype(float)",
        "2 * over_mean_20",
    ]
    assert made.warmup.tolist() == [19, 249, 1, 19]
    assert made.needs == ("close",)
    assert made.files[0].text == GOOD and made.files[0].path == file
    bars = make_bars((300, 260), seed=1)
    values = compute_features(bars, made)
    tech48 = compute_features(bars, feature_set("tech48"))
    np.testing.assert_array_equal(values[:, 0], tech48[:, feature_set("tech48").names.index("sma_20")])
    check_causal(made, bars)


def test_it_joins_built_in_sets(file):
    made = load(file, GOOD)
    joined = feature_set("core12+my_features", [made])
    assert joined.names[-1] == "twice" and joined.files == made.files and not joined.scale_free
    assert build_panel(make_bars((260,)), joined).values.shape == (260, 16)


def test_the_text_is_in_the_cache_key(file, bars):
    before = build_panel(bars, load(file, GOOD)).digest
    assert build_panel(bars, load(file, GOOD)).digest == before
    assert build_panel(bars, load(file, GOOD.replace("mean(close, 20)", "mean(close, 21)"))).digest != before
    text = "a comment that came later"
    made = load(file, GOOD)
    file.write_text(text)  # what was executed counts, not what lies there now
    assert build_panel(bars, made).digest == before


def test_the_workspace_lists_the_files(tmp_path):
    workspace = Workspace(tmp_path)
    assert user_feature_sets(workspace) == ()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "one.py").write_text(GOOD)
    (tmp_path / "two.py").write_text(HEAD + "@feature\ndef two(volume):\n    return volume\n")
    (tmp_path / "barcast.toml").write_text('[features]\nfiles = ["mine/one.py", "two.py"]\n')
    assert [made.name for made in user_feature_sets(Workspace(tmp_path))] == ["one", "two"]
    (tmp_path / "barcast.toml").write_text('[features]\nfiles = "two.py"\n')
    with pytest.raises(UsageError, match="give a list of files"):
        user_feature_sets(Workspace(tmp_path))


@pytest.mark.parametrize(
    ("body", "words"),
    (
        ("def broken(close)\n    return close\n", "line 4: expected ':'"),
        ("import not_there\n", "line 4: ModuleNotFoundError"),
        ("x = 1 / 0\n", "line 4: ZeroDivisionError"),
        ("def plain(close):\n    return close\n", "declares no feature"),
        (
            "@feature\ndef a(close):\n    return close\n\n@feature\ndef a(open):\n    return open\n",
            "line 8: the name `a` is taken in line 4",
        ),
        ("@feature\ndef close(close):\n    return close\n", "the name `close` is taken"),
        ("@feature\ndef a(clsoe):\n    return clsoe\n", "did you mean `close`"),
        ("@feature\ndef a(close):\n    return close.foo\n", "feature `a` in .* failed: AttributeError"),
        ("@feature\ndef a(close):\n    return close.mean()\n", "not one float64 a row"),
        ("@feature\ndef a(close):\n    return mean(close, 0)\n", "a window of `0` rows"),
        ("@feature\ndef a(close):\n    return mean(close[1:], 5)\n", "use lag"),
        ("@feature\ndef a(close):\n    return mean(close, 2000)\n", "has no value on 1500 bars"),
        ("@feature\ndef a(close):\n    close -= 1\n    return close\n", "changes the column `close`"),
    ),
)
def test_mistakes_are_named_with_their_file(file, body, words):
    with pytest.raises(UsageError, match=f"(?s)my_features.py.*{words}"):
        load(file, HEAD + body)


@pytest.mark.parametrize(
    "formula",
    (
        "np.append(close[1:], np.nan)",  # tomorrow's close
        "close / close.mean() - 1",  # a mean over the whole column, the future included
        "(close - close.min()) / (close.max() - close.min() + 1)",
        "np.convolve(close, np.ones(5) / 5, mode='same')",  # a centred window
        "np.interp(np.arange(len(close)), np.flatnonzero(volume > 4e5), close[volume > 4e5])",
        "np.argsort(np.argsort(close)).astype(float)",
        "np.cumsum(close)",  # goes on from one symbol, later bars included, to the next
    ),
)
def test_look_ahead_is_caught(file, formula):
    with pytest.raises(
        LeakError, match=r"feature `ahead` of S\d+ at .* changes when the bars after"
    ) as caught:
        load(file, HEAD + f"@feature\ndef ahead(close, volume):\n    return {formula}\n")
    assert caught.value.exit_code == 7


def test_memory_beyond_the_warmup_is_caught(file):
    formula = "(close > lag(close, 3)).astype(float)"  # a comparison hides the missing first rows
    body = f"@feature\ndef long(close):\n    return {formula}\n"
    with pytest.raises(UsageError, match=r"reaches back further than its warm-up \(0\)"):
        load(file, HEAD + body)
    assert load(file, HEAD + body.replace("@feature", "@feature(warmup=3)")).max_warmup == 3


def test_a_longer_warmup_may_be_declared(file):
    body = "@feature(warmup=1800)\ndef slow(close):\n    return mean(close, 1700)\n"
    assert load(file, HEAD + body).warmup.tolist() == [1800]


def test_names_that_are_taken(tmp_path):
    (tmp_path / "tech48.py").write_text(GOOD)
    with pytest.raises(UsageError, match="already a feature set called `tech48`"):
        load_user_features([tmp_path / "tech48.py"])
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(GOOD)
    with pytest.raises(UsageError, match="already a feature set called `mine`"):
        load_user_features([tmp_path / "a" / "mine.py", tmp_path / "b" / "mine.py"])


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match="no file "):
        load_user_features([tmp_path / "missing.py"])
    (tmp_path / "latin.py").write_bytes(b"# caf\xe9\n")
    with pytest.raises(DataError, match="save it as UTF-8"):
        load_user_features([tmp_path / "latin.py"])


def test_the_list_of_features_needs_no_compiler():
    code = (
        "import sys, barcast.features; assert not {'numba', 'polars', 'torch', 'pandas'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
