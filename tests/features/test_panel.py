"""The panel and its cache: what is served is what would be computed, whatever happened to the files."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from barcast.core.cache import evict
from barcast.core.errors import ResourceError, UsageError
from barcast.features import Feature, FeatureSet, build_panel, compute_features, feature_set
from barcast.features import panel as panel_module
from tests.conftest import make_bars


@pytest.fixture
def computations(monkeypatch):
    """Counts how often features were really computed."""
    calls = []
    real = compute_features
    monkeypatch.setattr(panel_module, "compute_features", lambda *a, **k: calls.append(1) or real(*a, **k))
    return calls


def entries(cache):
    return sorted((cache / "panels").glob("*"))


def test_rows_that_the_caller_names_are_not_hashed(bars, monkeypatch):
    monkeypatch.setattr(type(bars), "content_digest", lambda _: pytest.fail("hashed every row"))
    assert len(build_panel(bars, "core12", key={"data": ""})) == len(bars)


def test_rows_align_with_bars_and_cache_changes_no_bit(bars, tmp_path, computations):
    in_memory = build_panel(bars, "core12")
    written = build_panel(bars, "core12", cache=tmp_path)
    mapped = build_panel(bars, "core12", cache=tmp_path)
    assert len(computations) == 2
    assert in_memory.values.shape == (len(bars), 12) and len(mapped) == len(bars)
    for panel in (written, mapped):
        assert np.array_equal(panel.values, in_memory.values, equal_nan=True)
        assert panel.digest == in_memory.digest and panel.names == in_memory.names
    assert np.array_equal(mapped.column("ret_1"), mapped.values[:, 0], equal_nan=True)
    assert mapped.warmup.dtype == np.int32 and mapped.feature_set == "core12"
    for panel in (in_memory, mapped):
        with pytest.raises(ValueError, match="read-only"):
            panel.values[0, 0] = 1


def test_entry_is_a_safetensors_file(bars, tmp_path):
    from safetensors.numpy import load_file

    panel = build_panel(bars, "adv11", cache=tmp_path)
    (path,) = entries(tmp_path)
    assert np.array_equal(load_file(path)["values"], panel.values, equal_nan=True)


def test_all_that_shapes_the_values_is_in_the_key(bars, tmp_path):
    keys = [
        build_panel(bars, "core12", cache=tmp_path).digest,
        build_panel(bars, "adv11", cache=tmp_path).digest,
        build_panel(bars, "core12", cache=tmp_path, key={"store": 1}).digest,
        build_panel(bars, "core12", cache=tmp_path, key={"store": 2}).digest,
        build_panel(
            bars, "core12", cache=tmp_path, key={"store": 2, "quality": {"zero_volume": "mask"}}
        ).digest,
        build_panel(replace(bars, close=bars.close * 1.0000001), "core12", cache=tmp_path).digest,
        build_panel(bars.until(200), "core12", cache=tmp_path).digest,
        build_panel(bars, "core12", cache=tmp_path, key={"data": "abc"}).digest,
    ]
    assert len(set(keys)) == len(keys) == len(entries(tmp_path))


def test_changed_source_code_changes_the_key(bars, tmp_path, monkeypatch):
    before = build_panel(bars, "core12").digest
    made = feature_set("core12")
    changed = replace(
        made, features=(replace(made.features[0], compute=lambda close: close), *made.features[1:])
    )
    assert build_panel(bars, changed).digest != before
    monkeypatch.setattr(np, "__version__", "9.9")
    assert build_panel(bars, "core12").digest != before


def test_the_constants_of_a_feature_are_in_the_key(bars):
    """Functions from the same line of a file, a file that does not exist, and another warm-up."""

    def keyed(compute, warmup=4):
        return build_panel(bars, FeatureSet("one", (Feature("one", "", warmup, "", compute),), "")).digest

    def over(n):
        return lambda close: close / n

    typed = [eval(compile(f"lambda close: close * {n}", "<typed>", "eval")) for n in (2.5, 3.5)]
    keys = [keyed(over(2)), keyed(over(3)), keyed(over(3), warmup=5), *map(keyed, typed)]
    assert len(set(keys)) == len(keys)
    assert keyed(over(2)) == keys[0]


def test_a_given_data_digest_spares_hashing_the_bars(bars, monkeypatch):
    def refuse(self):
        raise AssertionError("hashed")

    monkeypatch.setattr(type(bars), "content_digest", refuse)
    build_panel(bars, "ohlcv5", key={"data": "abc"})


@pytest.mark.parametrize(
    "damage",
    (
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:3],
        lambda raw: b"",
        lambda raw: raw[:-40] + bytes([raw[-40] ^ 1]) + raw[-39:],
        lambda raw: raw[:20] + b"x" + raw[21:],
        lambda raw: raw + b"more",
        lambda raw: b"\0" * len(raw),
    ),
    ids=("half", "three bytes", "empty", "one bit", "header", "longer", "zeros"),
)
def test_a_damaged_entry_is_built_again(bars, tmp_path, computations, damage, caplog):
    good = build_panel(bars, "core12", cache=tmp_path)
    (path,) = entries(tmp_path)
    raw = path.read_bytes()
    path.unlink()
    path.write_bytes(damage(raw))
    again = build_panel(bars, "core12", cache=tmp_path)
    assert np.array_equal(again.values, good.values, equal_nan=True)
    assert path.read_bytes() == raw
    assert len(computations) == 2 and "building it again" in caplog.text


def test_an_interrupted_write_leaves_nothing(bars, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(panel_module, "compute_features", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_panel(bars, "core12", cache=tmp_path)
    assert entries(tmp_path) == []


def test_full_disk_and_missing_permission_are_explained(bars, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(ResourceError, match="no space left"):
            build_panel(bars, "core12", cache=tmp_path)
    assert entries(tmp_path) == []
    (tmp_path / "panels").rmdir()
    (tmp_path / "panels").write_text("a file where a folder should be")
    with pytest.raises(OSError):
        build_panel(bars, "core12", cache=tmp_path)


def test_a_read_only_cache_is_read_and_said_once(bars, tmp_path, monkeypatch, computations, caplog):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    good = build_panel(bars, "core12", cache=tmp_path).values.copy()  # the file is cut below
    (path,) = entries(tmp_path)
    monkeypatch.setattr(os, "utime", refuse)
    build_panel(bars, "core12", cache=tmp_path)
    assert len(computations) == 1 and not caplog.text
    path.write_bytes(path.read_bytes()[:-8])
    for call in ("unlink", "mkdir"):
        monkeypatch.setattr(f"pathlib.Path.{call}", refuse)
    for times in (2, 3):
        again = build_panel(bars, "core12", cache=tmp_path)
        assert np.array_equal(again.values, good, equal_nan=True) and len(computations) == times
    assert caplog.text.count("not kept: no permission to write") == 1


def test_eviction_removes_what_was_used_longest_ago(bars, tmp_path):
    paths = []
    for version in range(4):
        build_panel(bars, "core12", cache=tmp_path, key={"store": version})
        (path,) = set(entries(tmp_path)) - set(paths)
        paths.append(path)
        os.utime(path, (1000 + version, 1000 + version))
    build_panel(bars, "core12", cache=tmp_path, key={"store": 0})  # used again
    size = paths[0].stat().st_size
    assert evict(tmp_path / "panels", ".safetensors", 2 * size) == (paths[1], paths[2])
    assert set(entries(tmp_path)) == {paths[0], paths[3]}
    assert evict(tmp_path / "panels", ".safetensors", 0, keep=paths[3]) == (paths[0],)
    assert evict(tmp_path / "never made", ".safetensors", 0) == ()


def test_building_evicts_but_never_what_it_just_built(bars, tmp_path, monkeypatch):
    monkeypatch.setattr(panel_module, "CACHE_BYTES", 1)
    first = build_panel(bars, "core12", cache=tmp_path, key={"store": 1})
    kept = first.values.copy()
    build_panel(bars, "core12", cache=tmp_path, key={"store": 2})
    assert len(entries(tmp_path)) == 1
    assert np.array_equal(first.values, kept, equal_nan=True)  # still mapped here


def test_abandoned_temporary_files_go_and_fresh_ones_stay(tmp_path):
    folder = tmp_path / "panels"
    folder.mkdir()
    old, fresh = folder / "a.safetensors.tmp-1-x", folder / "b.safetensors.tmp-2-y"
    for path in (old, fresh):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 7200,) * 2)
    assert evict(tmp_path / "panels", ".safetensors", 10**9) == (old,)
    assert entries(tmp_path) == [fresh]


WRITER = """
import sys
from pathlib import Path
from barcast.features import build_panel
from tests.conftest import make_bars
panel = build_panel(make_bars((400, 300)), "core12", cache=Path(sys.argv[1]), num_threads=1)
print(panel.digest, float(panel.values[-1].sum()))
"""


def test_concurrent_writers_in_many_processes_agree(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, env=environment, text=True
        )
        for _ in range(3)
    ]
    printed = {writer.communicate()[0] for writer in writers}
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    expected = build_panel(make_bars((400, 300)), "core12")
    assert printed == {f"{expected.digest} {float(expected.values[-1].sum())}\n"}
    assert len(entries(tmp_path)) == 1


def test_concurrent_writers_in_many_threads_agree(bars, tmp_path):
    expected = build_panel(bars, "core12").values
    with ThreadPoolExecutor(6) as pool:
        panels = list(pool.map(lambda _: build_panel(bars, "core12", cache=tmp_path), range(12)))
    assert all(np.array_equal(panel.values, expected, equal_nan=True) for panel in panels)
    assert len(entries(tmp_path)) == 1


def test_no_bars(bars, tmp_path):
    panel = build_panel(bars.take(np.zeros(len(bars), bool)), "core12", cache=tmp_path)
    assert panel.values.shape == (0, 12)


def test_unknown_set_names_the_nearest(bars):
    with pytest.raises(UsageError, match="did you mean `tech48`"):
        build_panel(bars, "tech84")


def test_header_holds_names_and_checksum(bars, tmp_path):
    build_panel(bars, "ohlcv5", cache=tmp_path)
    raw = entries(tmp_path)[0].read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert (8 + length) % 64 == 0
    assert json.loads(header["__metadata__"]["names"]) == ["open", "high", "low", "close", "volume"]
    assert len(header["__metadata__"]["checksum"]) == 32
