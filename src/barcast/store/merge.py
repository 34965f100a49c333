"""Joining new rows to a stored history: what is new, what was corrected, whose anchor moved.

Adjusted and split-adjusted prices are re-scaled by their provider after each dividend or split. Such a
download agrees with the store on every return and differs on every price by one constant: its *anchor moved*.
Appending it would put a false return at the seam, so the symbol's whole history is replaced, or, when the
download does not reach back far enough, the symbol is refused with the reason. So it is without a single
session in common, where a moved anchor cannot be seen, and with one or two that differ by one small constant,
which may be a moved anchor or a correction; raw prices have no anchor to move.

Factors of new rows are counted from their own first bar; they are linked to the stored ones at the last
session that both have.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from barcast.core.bars import STORE_COLUMNS
from barcast.sources.options import LOT_SHARES
from barcast.store.market import MarketStore
from barcast.store.table import in_order

_KEY = ["symbol", "time"]
_PRICES = ("open", "high", "low", "close")
_VALUES = (*_PRICES, "volume", "amount", "close_raw")
_FACTORS = ("total_factor", "split_factor")
#: Whether a row stands beside a stored one.
_BOTH = pl.col("stored").is_not_null()
_RATIO = pl.col("total_factor_old") / pl.col("total_factor")
#: How far the ratio of stored to new factors is from one constant.
_WOBBLE = _RATIO.max() / _RATIO.min() - 1
#: Relative difference below which two values are the same number written twice.
SAME = 1e-6
#: Relative wobble of factors that rounding of adjusted closes explains.
SAME_FACTOR = 1e-3
#: Share of prices that must agree on the constant for an anchor to have moved.
_AGREEMENT = 0.9
_FEW_SESSIONS, _CLEAR_MOVE = 3, 0.005
_INCLUDE = (
    "include {} stored sessions, e.g. the last 5 up to {{}} (--same-anchor if this source never moves it)"
)
_APART = "no session in common, the anchor of its {} prices may have moved: " + _INCLUDE.format("some")
_UNSURE = "too few sessions in common, all prices differ by {} %, a moved anchor or a correction: " + (
    _INCLUDE.format("more")
)
_OTHER_UNIT = (
    "at equal prices its volumes are {} those of the store, shares (股) against lots (手): "
    "say --volume-unit {} (if the store is wrong, `import --replace` starts all of it over)"
)
_ANOTHER = (
    "most bars in common differ, and by no constant: another series? import it into another --workspace "
    "(`import --replace` starts the whole store over)"
)
#: With so many sessions in common, most of them changed without a constant, it is another series.
_REWRITE_SESSIONS = 5
#: A period of so many files is written anew as one, so that thousands of small appends stay fast to read.
MOST_FILES = 32


@dataclass(frozen=True)
class Merge:
    """What an update would do.

    Attributes
    ----------
    rows : pl.DataFrame
        Rows to write, columns of ``STORE_COLUMNS``: added, corrected, and whole histories of ``replaced``.
    replaced : tuple of str
        Symbols whose stored rows are dropped first.
    overwrites : bool
        Whether any stored row changes or goes; else the rows can simply be appended.
    refused : pl.DataFrame
        ``symbol`` and ``reason``: symbols left as they are.
    counts : dict of int
        ``new_symbols``, ``appended`` (after the symbol's last bar), ``filled`` (inside its life), ``earlier``
        (before its first), ``corrected``, ``unchanged`` rows; ``replaced_symbols``, ``refused_symbols``.
    examples : tuple of str
        A few of each class, for people.
    """

    rows: pl.DataFrame
    replaced: tuple[str, ...]
    overwrites: bool
    refused: pl.DataFrame
    counts: dict[str, int]
    examples: tuple[str, ...] = field(default=())


def merge(
    store: MarketStore, incoming: pl.DataFrame, linked: Collection[str], *, same_anchor: bool = False
) -> Merge:
    """Compare ``incoming`` with the last version of a store.

    Parameters
    ----------
    store : MarketStore
        Not empty.
    incoming : pl.DataFrame
        Columns of ``STORE_COLUMNS``, sorted, unique; factors anchored at each symbol's first bar here.
    linked : Collection of str
        Symbols whose factors come from the source; the others' bars take the stored factor before them.
    same_anchor : bool
        That this source never moves its anchor: adjusted bars are joined without a session in common, and
        one or two that differ by a small constant are corrections.
    """
    spans = _spans(store, incoming)
    fresh = incoming.join(spans, on="symbol", how="anti", maintain_order="left")
    known = _beside_stored(store, incoming.join(spans, on="symbol", how="semi", maintain_order="left"))
    verdicts = _judge(known, spans, linked, same_anchor=same_anchor)
    replaced = verdicts.filter(pl.col("verdict") == "replace")["symbol"]
    refused = verdicts.filter(pl.col("verdict") == "refuse").select("symbol", "reason")
    whole = known.filter(pl.col("symbol").is_in(replaced.implode()))
    usual = known.filter(~pl.col("symbol").is_in(pl.concat([replaced, refused["symbol"]]).implode()))
    usual = _link(usual, spans, linked, store)
    added = usual.filter(~_BOTH)
    corrected, details = _corrections(usual.filter(_BOTH), verdicts)
    rows = pl.concat([part.select(STORE_COLUMNS) for part in (fresh, added, corrected, whole)])
    rows, reanchored = _reanchored(store, rows, added, spans)
    placed = added.select("symbol", "time").join(spans, on="symbol", how="left")
    counts = {
        "new_symbols": fresh["symbol"].n_unique(),
        "appended": len(fresh) + len(placed.filter(pl.col("time") > pl.col("last"))),
        "filled": len(placed.filter(pl.col("time").is_between("first", "last"))),
        "earlier": len(placed.filter(pl.col("time") < pl.col("first"))),
        "corrected": len(corrected),
        "unchanged": len(usual) - len(added) - len(corrected),
        "replaced_symbols": len(replaced),
        "refused_symbols": len(refused),
    }
    return Merge(
        rows=rows.sort(_KEY),
        replaced=(*replaced, *reanchored),
        overwrites=bool(len(corrected) or len(replaced) or reanchored),
        refused=refused,
        counts=counts,
        examples=(*_moved_examples(verdicts), *details),
    )


def _spans(store: MarketStore, incoming: pl.DataFrame) -> pl.DataFrame:
    """Count the stored bars of each symbol that is to be updated: first, last, whether it has factors."""
    factors = pl.col("total_factor", "split_factor")
    spans = (
        store.table.scan()
        .select("symbol", "time", "basis", "total_factor", "split_factor")
        .group_by("symbol")
        .agg(
            bars=pl.len(),
            first=pl.col("time").min(),
            last=pl.col("time").max(),
            basis=pl.col("basis").first(),
            has_factors=pl.max_horizontal((factors != 1).any()),
        )
        .collect(engine="streaming")  # order does not matter here, and it takes half the time
    )
    return spans.join(incoming.select("symbol").unique(), on="symbol", how="semi")


def _beside_stored(store: MarketStore, known: pl.DataFrame) -> pl.DataFrame:
    """Put the stored values of the same bar beside new rows: suffix ``_old``, null where there is none."""
    if known.is_empty():
        stored = store.table.empty()
    else:
        ends = known.select(first=pl.col("time").min(), last=pl.col("time").max()).row(0)
        stored = store.frame(start=ends[0], end=ends[1])
    stored = stored.drop("basis").with_columns(stored=pl.lit(True))
    return known.join(stored, on=_KEY, how="left", suffix="_old", maintain_order="left")


def _judge(
    known: pl.DataFrame, spans: pl.DataFrame, linked: Collection[str], *, same_anchor: bool
) -> pl.DataFrame:
    """Decide for each symbol: ``usual``, ``relink`` (factors were corrected), ``replace`` or ``refuse``."""
    reach = known.group_by("symbol").agg(
        new_first=pl.col("time").min(), new_last=pl.col("time").max(), new_basis=pl.col("basis").first()
    )
    common = known.filter(_BOTH)
    table = (
        spans.join(reach, on="symbol")
        .join(_price_moves(common), on="symbol", how="left")
        .join(_factor_moves(common), on="symbol", how="left")
        .join(_unit_moves(common), on="symbol", how="left")
        .with_columns(
            linked=pl.col("symbol").is_in(pl.Series(linked, dtype=pl.String).implode()),
            covers=(pl.col("new_first") <= pl.col("first")) & (pl.col("new_last") >= pl.col("last")),
            reaches_end=pl.col("new_last") >= pl.col("last"),
        )
    )
    relinked = pl.col("linked") & (pl.col("factor_wobble") > SAME_FACTOR)
    verdict = (
        pl.when(pl.col("reason").is_not_null())
        .then(pl.lit("refuse"))
        .when("moved")
        .then(pl.lit("replace"))
        .when(relinked)
        .then(pl.lit("relink"))
        .otherwise(pl.lit("usual"))
    )
    reason = _refusal(relinked, same_anchor=same_anchor)
    return table.with_columns(reason=reason).with_columns(verdict=verdict).sort("symbol")


def _refusal(relinked: pl.Expr, *, same_anchor: bool) -> pl.Expr:
    """Why a symbol cannot be joined without a false return; null where it can."""
    apart = pl.col("factor_wobble").is_null()  # no session in common
    unsure = pl.col("unsure") & (pl.col("sessions") < pl.col("bars"))  # all bars rewritten leave no seam
    percent = (((pl.col("move").exp() - 1) * 100).round(3)).cast(pl.String)
    times = pl.when(pl.col("new_unit") == "lot").then(pl.lit(f"1/{LOT_SHARES}")).otherwise(pl.lit(LOT_SHARES))
    since, until = pl.col("first").cast(pl.String), pl.col("last").cast(pl.String)
    return (
        pl.when(pl.col("basis") != pl.col("new_basis"))
        .then(pl.format("stored with basis {}, given with basis {}", "basis", "new_basis"))
        .when(pl.col("moved") & (pl.col("basis") == "raw"))
        .then(pl.format("all prices in common differ by {} %: are these raw prices?", percent))
        .when(pl.col("moved") & ~pl.col("covers"))
        .then(pl.format("its anchor moved by {} %: give its whole history, from {} on", percent, since))
        .when(pl.col("rewritten") & ~pl.col("covers"))
        .then(pl.format("most bars in common differ: give its whole history, from {} on", since))
        .when("rewritten")
        .then(pl.lit(_ANOTHER))
        .when(pl.col("new_unit").is_not_null())
        .then(pl.format(_OTHER_UNIT, times, "new_unit"))
        .when(pl.col("linked") & apart)
        .then(pl.format("no session in common, factors cannot be linked: give them from {} on", until))
        .when(apart & (pl.col("basis") != "raw") & (not same_anchor))
        .then(pl.format(_APART, pl.col("basis"), until))
        .when(unsure & (pl.col("basis") != "raw") & (not same_anchor))
        .then(pl.format(_UNSURE, percent, until))
        .when(relinked & ~pl.col("reaches_end"))
        .then(pl.format("its factors were corrected: give its history up to {}", until))
    )


def _price_moves(common: pl.DataFrame) -> pl.DataFrame:
    """For symbols most of whose common bars differ: by how much, and whether by one constant.

    ``move`` is the median over sessions of the mean log ratio of the four prices. ``unsure``: so few sessions
    that a small constant may be a correction as well; a price written anew leaves some of the four as they
    are, a moved anchor none.
    """
    ratios = {name: (pl.col(name) / pl.col(f"{name}_old")).log() for name in _PRICES}
    differs = pl.any_horizontal(ratio.abs() > SAME for ratio in ratios.values())
    share = common.group_by("symbol").agg(sessions=pl.len(), changed=differs.fill_null(False).mean())
    most = share.filter(pl.col("changed") > 0.5)
    rounding = 1e-4 + 0.005 / pl.col("close") + 0.005 / pl.col("close_old")
    rows = common.join(most, on="symbol", how="semi").select("symbol", tolerance=rounding, **ratios)
    shift = pl.mean_horizontal(_PRICES)
    one_way = (pl.min_horizontal(_PRICES) > SAME) | (pl.max_horizontal(_PRICES) < -SAME)
    moves = rows.group_by("symbol").agg(
        move=shift.filter(shift.is_finite()).median(), one_way=one_way.fill_null(False).all()
    )
    near = [(pl.col(name) - pl.col("move")).abs() <= pl.col("tolerance") for name in _PRICES]
    agreement = rows.join(moves, on="symbol").group_by("symbol").agg(agreement=pl.all_horizontal(near).mean())
    size, enough = pl.col("move").abs(), pl.col("sessions") >= _FEW_SESSIONS
    constant = (size > SAME) & (pl.col("agreement") >= _AGREEMENT)
    return (
        moves.join(agreement, on="symbol")
        .join(most, on="symbol")
        .with_columns(moved=constant & (enough | (size > _CLEAR_MOVE)))
        .with_columns(
            rewritten=(pl.col("sessions") >= _REWRITE_SESSIONS) & ~pl.col("moved"),
            unsure=constant & pl.col("one_way") & ~pl.col("moved"),
        )
        .select("symbol", "sessions", "move", "moved", "rewritten", "unsure")
    )


def _factor_moves(common: pl.DataFrame) -> pl.DataFrame:
    """How far the ratio of stored to new factors is from being constant, per symbol."""
    return common.group_by("symbol").agg(factor_wobble=_WOBBLE)


def _unit_moves(common: pl.DataFrame) -> pl.DataFrame:
    """For symbols whose volumes all differ by the size of a lot at equal prices: the unit given."""
    equal = pl.all_horizontal(~_differs(name) for name in _PRICES)
    traded = (pl.col("volume") > 0) & (pl.col("volume_old") > 0)
    return (
        common.filter(equal & traded)
        .group_by("symbol")
        .agg(
            sessions=pl.len(),
            lot=_in_lots("volume", of="volume_old").all(),
            share=_in_lots("volume_old", of="volume").all(),
        )
        .filter((pl.col("sessions") >= _FEW_SESSIONS) & (pl.col("lot") | pl.col("share")))
        .select("symbol", new_unit=pl.when("lot").then(pl.lit("lot")).otherwise(pl.lit("share")))
    )


def _in_lots(name: str, *, of: str) -> pl.Expr:
    """Whether one volume is the other in lots, rounded to a whole one or not."""
    lots, shares = pl.col(name), pl.col(of)
    near = (lots * LOT_SHARES - shares).abs() <= LOT_SHARES + SAME * shares
    return near & (shares / lots).is_between(LOT_SHARES / 2, LOT_SHARES * 2)  # not just both of them small


def _link(
    usual: pl.DataFrame, spans: pl.DataFrame, linked: Collection[str], store: MarketStore
) -> pl.DataFrame:
    """Give new rows factors counted from the stored first bar."""
    from_source = pl.col("symbol").is_in(pl.Series(linked, dtype=pl.String).implode())
    sourced = usual.filter(from_source)
    ratios = {name: pl.col(f"{name}_old") / pl.col(name) for name in _FACTORS}
    scales = (
        sourced.filter(_BOTH)
        .group_by("symbol", maintain_order=True)
        .agg(
            # corrected factors count from the first common session on, others stay as stored up to the last
            pl.when(_WOBBLE > SAME_FACTOR).then(ratio.first()).otherwise(ratio.last()).alias(f"{name}_scale")
            for name, ratio in ratios.items()
        )
    )
    sourced = sourced.join(scales, on="symbol", how="left", maintain_order="left").with_columns(
        pl.col(name) * pl.col(f"{name}_scale") for name in _FACTORS
    )
    carried = _carry(usual.filter(~from_source), spans, store)
    return pl.concat([sourced.select(usual.columns), carried.select(usual.columns)])


def _carry(rows: pl.DataFrame, spans: pl.DataFrame, store: MarketStore) -> pl.DataFrame:
    """Give rows without factors of their own the stored factor on or before them."""
    with_factors = pl.col("symbol").is_in(spans.filter(pl.col("has_factors"))["symbol"].implode())
    bare, rows = rows.filter(~with_factors), rows.filter(with_factors)
    if rows.is_empty():
        return bare
    stored = store.frame(rows["symbol"].unique().to_list()).select(*_KEY, *_FACTORS)
    found = (
        rows.drop(_FACTORS)
        .sort("time")
        .join_asof(stored.sort("time"), on="time", by="symbol", check_sortedness=False)
        .with_columns(pl.col(_FACTORS).fill_null(1.0))
    )
    return pl.concat([bare, found.select(bare.columns)])


def _corrections(common: pl.DataFrame, verdicts: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Rows in common whose values changed; what the new source lacks (volume, amount) is kept."""
    relinked = verdicts.filter(pl.col("verdict") == "relink")["symbol"]
    keep_factors = ~pl.col("symbol").is_in(relinked.implode())
    rows = common.with_columns(
        *(pl.coalesce(name, f"{name}_old").alias(name) for name in _VALUES),
        *(pl.when(keep_factors).then(f"{name}_old").otherwise(name).alias(name) for name in _FACTORS),
    )
    compared = (*_VALUES, *_FACTORS)
    changed = rows.filter(pl.any_horizontal(_differs(name) for name in compared))
    return changed.select(STORE_COLUMNS), [_describe(row, compared) for row in changed.head(3).to_dicts()]


def _differs(name: str) -> pl.Expr:
    new, old = pl.col(name), pl.col(f"{name}_old")
    limit = SAME * pl.max_horizontal(new.abs(), old.abs())
    return ((new - old).abs() > limit).fill_null(new.is_not_null() & old.is_null())


def _describe(row: dict[str, object], names: Collection[str]) -> str:
    changed = [f"{n} {row[f'{n}_old']} -> {row[n]}" for n in names if row[n] != row[f"{n}_old"]]
    return f"corrected {row['symbol']} {row['time']}: {', '.join(changed)}"


def _moved_examples(verdicts: pl.DataFrame) -> list[str]:
    told = verdicts.filter(pl.col("verdict") == "replace").head(3)
    return [
        f"replaced {row['symbol']}: its anchor moved, prices differ by {100 * math.expm1(row['move']):+.3f} %"
        for row in told.to_dicts()
    ]


def _reanchored(
    store: MarketStore, rows: pl.DataFrame, added: pl.DataFrame, spans: pl.DataFrame
) -> tuple[pl.DataFrame, list[str]]:
    """Make factors 1 again on the first bar of symbols that gained earlier ones."""
    early = added.join(spans, on="symbol").filter(pl.col("time") < pl.col("first"))
    names = early.filter(pl.any_horizontal(pl.col(_FACTORS) != 1))["symbol"].unique()
    if names.is_empty():
        return rows, []
    mine = pl.col("symbol").is_in(names.implode())
    given = rows.filter(mine)
    stored = store.frame(names.to_list()).join(given, on=_KEY, how="anti")
    whole = pl.concat([stored, given]).sort(_KEY)
    anchored = whole.with_columns(pl.col(name) / pl.col(name).first().over("symbol") for name in _FACTORS)
    return pl.concat([rows.filter(~mine), anchored]), sorted(names)


def write(
    store: MarketStore, change: Merge, note: Mapping[str, Any], beside: Mapping[str, pl.DataFrame]
) -> int:
    """Publish a merge as one version; the writer lock must be held. Other parameters as in ``publish``."""
    files = store.table.files().group_by("period").agg(pl.len())
    period = store.table.period(pl.col("time"))
    touched = set(change.rows.select(period.unique()).to_series())
    if not change.overwrites:
        crowded = set(files.filter(pl.col("len") >= MOST_FILES)["period"])
        if not touched & crowded:
            return store.publish(change.rows, note, periods=(), beside=beside)
    dropped = pl.Series(change.replaced, dtype=pl.String).implode()
    if change.replaced:
        theirs = store.table.scan().filter(pl.col("symbol").is_in(dropped)).select(period.unique())
        touched |= set(theirs.collect(engine="in-memory").to_series())
    kept = (
        store.table.scan(periods=(min(touched), max(touched)))
        .filter(period.is_in(pl.Series(sorted(touched)).implode()) & ~pl.col("symbol").is_in(dropped))
        .collect(engine="in-memory")
        .join(change.rows, on=_KEY, how="anti")
    )
    # the old rows of a period come sorted from few files, the new ones are sorted: two lots of runs
    rows = in_order(pl.concat([kept, change.rows]))
    return store.publish(rows, note, periods=touched, beside=beside)
