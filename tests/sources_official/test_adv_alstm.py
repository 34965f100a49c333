"""The official ACL18 and KDD17 protocol: counts, up-rates and two rules that need no training, exactly."""

import math

import numpy as np
import polars as pl
import pytest

from barcast.core.errors import DataError, UsageError
from barcast.sources.adv_alstm import (
    FEATURES,
    MISSING,
    SPLITS,
    VALUES,
    official_instances,
    read_official,
)

SPLIT_NAMES = ("train", "validation", "test")


@pytest.fixture(scope="module")
def tables(real_data):
    return {name: read_official(real_data / f"{name}_ourpped.parquet") for name in SPLITS}


def accuracy_and_mcc(up, y):
    up, y = up.astype(bool), y.astype(bool)
    tp, tn, fp, fn = ((a & b).sum() for a, b in ((up, y), (~up, ~y), (up, ~y), (~up, y)))
    root = math.sqrt(float(tp + fp) * float(tp + fn) * float(tn + fp) * float(tn + fn))
    return round(100 * float(tp + tn) / len(y), 2), round((float(tp) * tn - float(fp) * fn) / root, 4)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "look_back", "counts", "up_rates"),
    [
        ("acl18", 5, (20_315, 2_555, 3_720), (0.5071, 0.4458, 0.5129)),
        ("acl18", 10, (20_309, 2_555, 3_720), (0.5070, 0.4458, 0.5129)),
        ("acl18", 15, (20_303, 2_555, 3_720), (0.5071, 0.4458, 0.5129)),
        ("kdd17", 5, (64_644, 8_070, 7_398), (0.5115, 0.4896, 0.5285)),
        ("kdd17", 10, (64_489, 8_070, 7_398), (0.5118, 0.4896, 0.5285)),
        ("kdd17", 15, (64_307, 8_070, 7_398), (0.5123, 0.4896, 0.5285)),
    ],
)
def test_instance_counts_and_up_rates(tables, name, look_back, counts, up_rates):
    for split, count, up_rate in zip(SPLIT_NAMES, counts, up_rates, strict=True):
        found = official_instances(tables[name], name, split, look_back)
        assert found.x.shape == (count, look_back, 11)
        assert round(float(found.y.mean()), 4) == up_rate
        assert np.isfinite(found.x).all()


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "momentum", "above_mean"),
    [
        ("acl18", (46.21, -0.0782), (47.07, -0.0640)),
        ("kdd17", (49.16, -0.0228), (50.12, -0.0049)),
    ],
)
def test_rules_that_need_no_training_score_what_they_must(tables, name, momentum, above_mean):
    test = official_instances(tables[name], name, "test", 5)
    price = tables[name].price
    risen = price[test.symbol, test.session - 1] > price[test.symbol, test.session - 11]
    assert accuracy_and_mcc(risen, test.y) == momentum
    below = test.x[:, -1, FEATURES.index("d30")]  # 30-day mean over price, less one
    assert accuracy_and_mcc(below < 0, test.y) == above_mean


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "missing"), [("acl18", 758), ("kdd17", 1450)])
def test_missing_rows_are_nan_at_once(tables, name, missing):
    table = tables[name]
    gone = np.isnan(table.label)
    assert gone.sum() == missing
    np.testing.assert_array_equal(gone, np.isnan(table.features).any(axis=2))
    assert np.nanmin(table.features) > -100
    assert list(table.symbols) == sorted(table.symbols)


@pytest.mark.realdata
def test_instances_are_what_the_official_loop_gives(tables):
    """The official code's own loop over dates and symbols, sentinels and all, on a piece of ACL18."""
    table, look_back = tables["acl18"], 5
    raw = np.concatenate([table.features, table.label[..., None], table.price[..., None]], axis=2)
    raw = np.where(np.isnan(raw), MISSING, raw)
    first = int(np.searchsorted(table.dates, np.datetime64("2014-08-01")))
    last = int(np.searchsorted(table.dates, np.datetime64("2014-12-01")))  # AGFS and BABA appear
    x, y, where = [], [], []
    for date in range(first, last):
        for symbol in range(len(table.symbols)):
            window = raw[symbol, date - look_back : date]
            if abs(raw[symbol, date, -2]) > 1e-8 and window.min() > -123320:
                x.append(window[:, :-2])
                y.append((raw[symbol, date, -2] + 1) / 2)
                where.append((date, symbol))
    found = official_instances(table, "acl18", "train", look_back)
    inside = (found.session >= first) & (found.session < last)
    np.testing.assert_array_equal(found.x[inside], np.array(x))
    np.testing.assert_array_equal(found.y[inside], np.array(y))
    np.testing.assert_array_equal(np.stack([found.session, found.symbol], axis=1)[inside], np.array(where))


def small_frame(num_dates=12):
    """Two symbols on the first sessions of the ACL18 test part; B misses a day."""
    rng = np.random.default_rng(0)
    dates = pl.date_range(pl.date(2015, 10, 1), pl.date(2015, 10, num_dates), eager=True)
    values = {name: rng.normal(size=2 * num_dates).round(6) for name in FEATURES}
    values |= {"label": rng.integers(-1, 2, 2 * num_dates), "price": rng.random(2 * num_dates) + 5}
    symbols = ["B"] * num_dates + ["A"] * num_dates
    frame = pl.DataFrame({"symbol": symbols, "date": pl.concat([dates, dates])} | values)
    hole = (pl.col("symbol") == "B") & (pl.col("date") == pl.date(2015, 10, 4))
    return frame.with_columns(
        pl.when(hole).then(MISSING).otherwise(pl.col(name)).alias(name) for name in VALUES
    )


def write_folder(folder, frame):
    price = folder / "ourpped"
    price.mkdir(parents=True)
    for (symbol,), rows in frame.group_by("symbol"):
        rows.select(VALUES).write_csv(price / f"{symbol}.csv", include_header=False)
    dates = frame["date"].unique().sort()
    (folder / "trading_dates.csv").write_text("\n".join(map(str, dates)) + "\n")
    return price


def test_the_original_folder_reads_like_the_packed_file(tmp_path):
    frame = small_frame()
    frame.write_parquet(tmp_path / "packed.parquet")
    packed = read_official(tmp_path / "packed.parquet")
    folder = read_official(write_folder(tmp_path / "original", frame))
    assert packed.symbols == folder.symbols == ("A", "B")
    for field in ("dates", "features", "label", "price"):
        np.testing.assert_array_equal(getattr(packed, field), getattr(folder, field))
    assert np.isnan(packed.features[1, 3]).all()


def test_a_window_with_a_missing_row_and_a_flat_label_give_no_instance(tmp_path):
    frame = small_frame()
    frame.write_parquet(tmp_path / "packed.parquet")
    table = read_official(tmp_path / "packed.parquet")
    found = official_instances(table, "acl18", "test", 3)
    of_b = found.session[found.symbol == 1].tolist()
    labels = frame.filter(pl.col("symbol") == "B")["label"].to_list()
    assert of_b == [day for day in (7, 8, 9, 10, 11) if labels[day] != 0]  # day 3 is missing
    for row in range(len(found.y)):
        rows = slice(found.session[row] - 3, found.session[row])
        np.testing.assert_array_equal(found.x[row], table.features[found.symbol[row], rows])


def test_files_that_are_not_the_set_are_refused_by_name(tmp_path):
    frame = small_frame()
    frame.drop("d15").write_parquet(tmp_path / "column.parquet")
    with pytest.raises(DataError, match="no column d15"):
        read_official(tmp_path / "column.parquet")
    pl.concat([frame, frame.head(1)]).write_parquet(tmp_path / "twice.parquet")
    with pytest.raises(DataError, match="2 repeated"):
        read_official(tmp_path / "twice.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"trading_dates.csv not found"):
        read_official(tmp_path / "empty")
    short = write_folder(tmp_path / "short", frame)
    (short / "A.csv").write_text("1,2,3\n")
    with pytest.raises(DataError, match=r"A.csv: 1 rows of 3 values, not 12 of 13"):
        read_official(short)


@pytest.mark.parametrize(
    ("data_set", "split", "look_back"), [("acl19", "test", 5), ("acl18", "live", 5), ("acl18", "test", 0)]
)
def test_parts_that_do_not_exist_are_refused(tmp_path, data_set, split, look_back):
    small_frame().write_parquet(tmp_path / "packed.parquet")
    with pytest.raises(UsageError):
        official_instances(read_official(tmp_path / "packed.parquet"), data_set, split, look_back)
