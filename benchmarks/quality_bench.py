"""Recall of the quality checks on real markets, and samples of their alarms for judging by eye.

    python benchmarks/quality_bench.py --data DIR            # the tables of recall and of alarms
    python benchmarks/quality_bench.py --data DIR --write    # ... into quality.md of docs/en and docs/zh
    python benchmarks/quality_bench.py --data DIR --sample us_market [--kinds spike,hole]

Every defect is counted again by a definition of its own, written with polars expressions on the packed files
and not with the package. Recall is the share of those rows (or symbols) that a finding names, over the count
that the data's description gives.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from barcast.core.bars import STORE_COLUMNS
from barcast.core.calendar import Calendar, build_calendar
from barcast.core.texts import Language
from barcast.quality import KINDS, QualityReport, check_bars

DOCS = Path(__file__).parents[1] / "docs"
Keys = set[tuple[object, ...]]
ON = ["symbol", "time"]


@dataclass(frozen=True)
class Source:
    """How a packed file becomes store rows."""

    market: str
    exchange: str
    basis: str
    frequency: str = "1d"
    file: str = ""
    factors: bool = True


SOURCES = {
    "us_market": Source("us", "XNYS", "raw"),
    "cn_a_share": Source("cn", "XSHG", "adjusted"),
    "kdd17": Source("us", "XNYS", "raw"),
    "kdd17 without factors": Source("us", "XNYS", "raw", file="kdd17", factors=False),
    "us_long": Source("us", "XNYS", "split"),
    "acl18": Source("us", "XNYS", "split"),
    "crypto_1h": Source("crypto", "24x7", "raw", frequency="1h"),
}
SAMPLED = ("us_market", "cn_a_share", "kdd17", "kdd17 without factors", "us_long")


@dataclass(frozen=True)
class Loaded:
    """One data set, checked."""

    frame: pl.DataFrame
    calendar: Calendar
    report: QualityReport
    seconds: float

    def found(self, *kinds: str) -> Keys:
        """Return (symbol, time) of the findings of some kinds."""
        return set(self.report.findings.filter(pl.col("kind").is_in(kinds)).select(ON).iter_rows())


def load(folder: Path, name: str) -> Loaded:
    """Read a packed file, give it the store's columns, and check it."""
    source = SOURCES[name]
    frame = store_rows(pl.read_parquet(folder / f"{source.file or name}.parquet"), source)
    calendar = build_calendar(source.exchange, source.frequency, frame["time"].unique().sort().to_numpy())
    start = time.perf_counter()
    report = check_bars(frame, calendar, source.market)
    return Loaded(frame, calendar, report, time.perf_counter() - start)


def store_rows(frame: pl.DataFrame, source: Source) -> pl.DataFrame:
    """Rename, cast and derive the cumulative factor from `adj_close`."""
    stamp = "date" if "date" in frame.columns else "timestamp"
    when = (
        pl.col(stamp) if stamp == "date" else pl.col(stamp).dt.replace_time_zone(None).dt.cast_time_unit("us")
    )
    frame = frame.with_columns(
        when.alias("time"), pl.col("open", "high", "low", "close", "volume").cast(pl.Float64)
    )
    factor = pl.lit(1.0)
    if source.factors and "adj_close" in frame.columns:
        ratio = pl.col("adj_close").cast(pl.Float64) / pl.when(pl.col("close") > 0).then(pl.col("close"))
        ratio = ratio.forward_fill().over("symbol")
        factor = ratio / ratio.drop_nulls().first().over("symbol")
    raw = pl.col("close_raw").cast(pl.Float64) if "close_raw" in frame.columns else pl.lit(None, pl.Float64)
    return frame.with_columns(
        amount=pl.lit(None, pl.Float64), split_factor=pl.lit(1.0), total_factor=factor, close_raw=raw,
        basis=pl.lit(source.basis),
    ).select(STORE_COLUMNS)  # fmt: skip


# ---- defects counted again, each in its own words --------------------------------------------------------


def before(name: str) -> pl.Expr:
    return pl.col(name).shift(1).over("symbol")


RAW = (pl.col("close") / before("close")).log()
STEP = (pl.col("total_factor") / before("total_factor")).log()
FACTOR = pl.col("close") / pl.col("close_raw")


def where(condition: pl.Expr) -> Callable[[Loaded], Keys]:
    """Find (symbol, time) of the rows that meet a condition."""
    return lambda data: set(data.frame.filter(condition).select(ON).iter_rows())


def near_fraction(tolerance: float = 0.025) -> pl.Expr:
    """Whether closes of two days are a whole multiple of each other, and the factor is silent."""
    ratio = pl.col("close") / before("close")
    whole = [float(n) for n in (2, 3, 4, 5, 6, 7, 8, 10, 20, 50, 100)]
    down = [(ratio * n - 1).abs() < tolerance for n in whole]
    up = [(ratio / n - 1).abs() < tolerance for n in whole]
    return pl.any_horizontal(down + up) & (STEP.abs() < 0.01)


def stale(data: Loaded) -> Keys:
    zero = data.frame.with_columns(r=RAW).filter(pl.col("r").is_finite())
    share = zero.group_by("symbol").agg((pl.col("r") == 0).mean().alias("share"))
    return {(symbol,) for symbol in share.filter(pl.col("share") > 0.5)["symbol"]}


def holes(longer_than: int = 0) -> Callable[[Loaded], Keys]:
    """Find the bars that end a hole, counted on the times at which anything traded."""

    def find(data: Loaded) -> Keys:
        times = data.frame["time"].unique().sort()
        place = data.frame.with_columns(place=times.search_sorted(data.frame["time"]).cast(pl.Int64))
        gap = pl.col("place") - before("place")
        return set(place.filter(gap > 1 + longer_than).select(ON).iter_rows())

    return find


def ended(data: Loaded) -> Keys:
    last = data.frame.group_by("symbol").agg(pl.col("time").max())
    return set(last.filter(pl.col("time") < data.frame["time"].max()).select(ON).iter_rows())


def on(pairs: Iterable[tuple[str, str]]) -> Callable[[Loaded], Keys]:
    """Find the rows of given symbols and days."""
    named = pl.DataFrame(list(pairs), schema=ON, orient="row").with_columns(pl.col("time").str.to_date())
    return lambda data: set(data.frame.select(ON).join(named, on=ON).iter_rows())


SPLIT_DAYS = (
    ("AAPL", "2014-06-09"), ("BRK-B", "2010-01-21"), ("CMCSA", "2007-02-22"), ("D", "2007-11-20"),
    ("DUK", "2012-07-03"), ("GOOGL", "2014-04-03"), ("KO", "2012-08-13"), ("MA", "2014-01-22"),
    ("MO", "2008-03-31"), ("RIO", "2010-04-30"), ("VALE", "2007-09-13"),
)  # fmt: skip


@dataclass(frozen=True)
class Defect:
    """One line of the data's description.

    ``described`` is its count; ``again`` counts anew; ``kinds`` are the ones that should name it. With
    ``by_symbol`` keys are symbols.
    """

    data: str
    words: tuple[str, str]
    described: int
    again: Callable[[Loaded], Keys]
    kinds: tuple[str, ...]
    by_symbol: bool = False


def in_zero_volume(data: str, described: int) -> Defect:
    return Defect(
        data, ("zero volume", "成交量为零"), described, where(pl.col("volume") == 0), ("zero_volume",)
    )


def outside(data: str, name: str, described: int) -> Defect:
    words = (f"{name} outside [low, high]", {"close": "收盘价越界", "open": "开盘价越界"}[name])
    condition = (pl.col(name) > pl.col("high")) | (pl.col(name) < pl.col("low"))
    return Defect(data, words, described, where(condition), (f"{name}_outside_bar",))


def beyond(data: str, limit: float, described: int, *kinds: str) -> Defect:
    words = (f"adjusted log return beyond {limit}", f"复权对数收益超过 {limit}")
    return Defect(data, words, described, where((RAW + STEP).abs() > limit), ("extreme_return", *kinds))


HOLES = ("hole", "long_hole")
IMPLIED_STEP = FACTOR / before("close") * before("close_raw") - 1
ANCHOR_DAY = pl.col("time") == pl.date(2025, 8, 25)
US_MARKET = (
    Defect(
        "us_market", ("all-zero prices", "价格全为零"), 10,
        where(pl.col("close") == 0), ("non_positive_price",),
    ),
    outside("us_market", "close", 1),
    in_zero_volume("us_market", 81_396),
    Defect(
        "us_market", ("return exactly 0 on > 50 % of days (symbols)", "一半以上收益率为 0（代码数）"), 184,
        stale, ("stale_symbol",), by_symbol=True,
    ),
    Defect("us_market", ("holes", "缺口"), 2_197, holes(), HOLES),
    Defect(
        "us_market", ("more than 20 sessions from bar to bar", "相邻K线相隔 20 个交易日以上"), 32,
        holes(19), HOLES,
    ),
    beyond("us_market", 0.4, 2_244, "non_positive_price"),
    Defect(
        "us_market", ("log move beyond 0.6 without factor", "无因子的对数变动超过 0.6"), 1_068,
        where((RAW.abs() > 0.6) & ~(STEP.abs() > 1e-6)), ("extreme_return", "non_positive_price"),
    ),
    Defect(
        "us_market", ("ratio like a split without factor", "无因子而像拆股的比值"), 218,
        where(near_fraction()), ("split_like_jump",),
    ),
    Defect(
        "us_market", ("two securities under one symbol (symbols)", "一个代码两只证券（代码数）"), 1,
        lambda _: {("NEE",)}, ("two_securities",), by_symbol=True,
    ),
)  # fmt: skip
CN_A_SHARE = (
    Defect("cn_a_share", ("holes", "缺口"), 1_562, holes(), HOLES),
    Defect(
        "cn_a_share", ("holes of more than 20 sessions", "超过 20 个交易日的缺口"), 16,
        holes(20), ("long_hole",),
    ),
    Defect(
        "cn_a_share", ("stitched anchor, traded close known", "锚点拼接（有实际收盘价）"), 7,
        where((IMPLIED_STEP.abs() > 0.003) & ANCHOR_DAY), ("stitched_anchor",),
    ),
    Defect(
        "cn_a_share", ("stitched anchor, traded close unknown", "锚点拼接（无实际收盘价）"), 2,
        on((("301211", "2025-08-25"), ("300708", "2025-08-15"))), ("beyond_limit",),
    ),
    Defect(
        "cn_a_share", ("adjusted close above traded close", "前复权价高于实际价"), 2_265,
        where(FACTOR > 1.0005), ("adjusted_above_raw",),
    ),
    Defect(
        "cn_a_share", ("factor falls by > 0.5 % (noise, anchors)", "因子下降 > 0.5 %（噪声与锚点）"), 457,
        where(IMPLIED_STEP < -0.005), ("factor_noise", "stitched_anchor"),
    ),
    Defect("cn_a_share", ("symbols that end early", "提前结束的代码"), 7, ended, ("ended_symbol",)),
)  # fmt: skip
OTHERS = (
    Defect(
        "kdd17 without factors", ("split and spin-off days", "拆股与分立日"), 11,
        on(SPLIT_DAYS), ("missed_factor",),
    ),
    in_zero_volume("kdd17", 1),
    outside("us_long", "close", 1),
    outside("us_long", "open", 5),
    in_zero_volume("us_long", 64),
    beyond("us_long", 0.4, 301),
    beyond("us_long", 1.0, 10),
    Defect(
        "us_long", ("adjusted and raw return differ by > 0.3", "复权与未复权收益相差 > 0.3"), 11,
        where(STEP.abs() > 0.3), ("large_distribution",),
    ),
    Defect("acl18", ("null prices", "价格为空"), 3, where(pl.col("close").is_null()), ("non_finite",)),
    in_zero_volume("acl18", 111),
    Defect(
        "crypto_1h", ("gaps", "缺口"), 56,
        where(pl.col("time") - before("time") > pl.duration(hours=1)), HOLES,
    ),
    in_zero_volume("crypto_1h", 10),
    beyond("crypto_1h", 0.1, 43),
)  # fmt: skip
DEFECTS = (*US_MARKET, *CN_A_SHARE, *OTHERS)


def recall_rows(loaded: dict[str, Loaded], language: int) -> list[str]:
    """Return the lines of the markdown table in English (0) or Chinese (1)."""
    heads = (
        "| data | defect | described | counted again | named by the check | recall | kinds |",
        "| 数据 | 缺陷 | 说明中的数量 | 重新计数 | 检查指出 | 召回率 | 种类 |",
    )
    lines = [heads[language], "| --- | --- | ---: | ---: | ---: | ---: | --- |"]
    for defect in DEFECTS:
        data = loaded[defect.data]
        truth, found = defect.again(data), data.found(*defect.kinds)
        if defect.by_symbol:
            found = {(key[0],) for key in found}
        hits = len(truth & found)
        recall = 100 * min(hits / defect.described, 1)
        kinds = ", ".join(f"`{kind}`" for kind in defect.kinds)
        numbers = f"{defect.described:,} | {len(truth):,} | {hits:,} | {recall:.1f} %"
        lines.append(f"| {defect.data} | {defect.words[language]} | {numbers} | {kinds} |")
    return lines


def alarm_rows(loaded: dict[str, Loaded], language: int) -> list[str]:
    """Return how many findings of each kind each data set has."""
    names = [name for name in SOURCES if name in loaded]
    lines = [f"| {('kind', '种类')[language]} | {' | '.join(names)} |", "| --- |" + " ---: |" * len(names)]
    for kind in KINDS:
        counts = [loaded[name].report.counts.get(kind, 0) for name in names]
        if any(counts):
            lines.append(f"| `{kind}` | {' | '.join(f'{count:,}' for count in counts)} |")
    size = [f"{len(loaded[name].frame) / 1e6:.2f} / {loaded[name].seconds:.1f} s" for name in names]
    return [*lines, f"| {('million rows / time', '百万行 / 用时')[language]} | {' | '.join(size)} |"]


def kind_rows(language: int) -> list[str]:
    """Return the table of kinds and policies."""
    lang: Language = "zh" if language else "en"
    heads = (
        "| kind | what is measured | default | may be masked | what to do |",
        "| 种类 | 判定方法 | 默认 | 可否 mask | 怎么办 |",
    )
    lines = [heads[language], "| --- | --- | --- | --- | --- |"]
    for kind in KINDS.values():
        words = [text.in_language(lang).replace("|", "\\|") for text in (kind.meaning, kind.todo)]
        reason = ("hindsight", "需要后见") if not kind.causal else ("not in single rows", "不在单行之内")
        mask = (
            ("yes", "可以")[language]
            if "mask" in kind.allowed
            else ("no: ", "否：")[language] + reason[language]
        )
        lines.append(f"| `{kind.name}` | {words[0]} | {kind.default} | {mask} | {words[1]} |")
    return lines


def replaced(text: str, name: str, lines: list[str]) -> str:
    """Put lines between the markers of a page."""
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    head, rest = text.split(start)
    body = "\n".join(lines)
    return f"{head}{start}\n{body}\n{end}{rest.split(end)[1]}"


def write_docs(loaded: dict[str, Loaded]) -> None:
    """Write the tables into both pages."""
    for language, folder in enumerate(("en", "zh")):
        page = DOCS / folder / "quality.md"
        text = replaced(page.read_text(encoding="utf-8"), "kinds", kind_rows(language))
        text = replaced(text, "recall", recall_rows(loaded, language))
        text = replaced(text, "alarms", alarm_rows(loaded, language))
        page.write_text(text, encoding="utf-8")


def print_sample(data: Loaded, kinds: Iterable[str], number: int) -> None:
    """Print the bars around a random sample of each kind of alarm."""
    frame = data.frame.with_columns(adjusted=(pl.col("close") * pl.col("total_factor")).round_sig_figs(6))
    for kind in kinds:
        part = data.report.of(kind)
        picked = part.sample(min(number, len(part)), seed=1).sort("symbol", "time")
        print(f"\n===== {kind}: {len(part)}")
        for finding in picked.iter_rows(named=True):
            print(f"--- {finding['symbol']} {finding['time']} .. {finding['until']}: {finding['detail']}")
            own = frame.filter(pl.col("symbol") == finding["symbol"])
            place = int(np.searchsorted(own["time"].to_numpy(), np.datetime64(finding["time"])))
            columns = ("time", "open", "high", "low", "close", "volume", "close_raw", "adjusted")
            for row in own[max(0, place - 4) : place + 5].select(columns).iter_rows():
                mark = "*" if row[0] == finding["time"] else " "
                print(" ", mark, row[0], *(f"{value:.6g}" for value in row[1:] if value is not None))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the packed files")
    parser.add_argument("--write", action="store_true", help="write the tables into the docs")
    parser.add_argument("--sample", choices=SAMPLED, help="print bars around a sample of each alarm kind")
    parser.add_argument("--kinds", default="", help="only these kinds, separated by commas")
    parser.add_argument("--number", type=int, default=8, help="alarms of each kind to print")
    given = parser.parse_args()
    if given.sample:
        data = load(given.data, given.sample)
        print_sample(data, given.kinds.split(",") if given.kinds else data.report.counts, given.number)
        return
    loaded = {name: load(given.data, name) for name in SOURCES}
    if given.write:
        write_docs(loaded)
    print("\n".join([*recall_rows(loaded, 0), "", *alarm_rows(loaded, 0)]))


if __name__ == "__main__":
    main()
