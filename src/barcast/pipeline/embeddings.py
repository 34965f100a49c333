"""``barcast embeddings``: what a universal network knows of each symbol, made visible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from barcast.core.arrays import F32
from barcast.core.atomic import atomic_path, refuse_folder
from barcast.core.errors import RunError, UsageError
from barcast.core.runs import RunFolder
from barcast.core.texts import Text, counted
from barcast.core.workspace import Workspace
from barcast.evaluation.neighbours import (
    Movement,
    Purity,
    directions,
    movement,
    nearest,
    principal_axes,
    purity,
)
from barcast.pipeline.attributes import known_attributes, values_of
from barcast.pipeline.load import check_one_model, check_there
from barcast.pipeline.unfinished import check_done
from barcast.store import MarketStore
from barcast.store.facts import Told, join_facts, read_facts
from barcast.store.names import resolve_names

#: How a file of vectors may end.
EXPORT_ENDINGS = (".parquet", ".csv", ".tsv")
#: What is said beside a symbol, and never coloured or scored.
NAME = "name"


@dataclass(frozen=True)
class SymbolEmbeddings:
    """The embeddings of one run.

    Attributes
    ----------
    run : str
    market : str
        How symbols are spelled.
    symbols : tuple of str, length N
        Those that have a vector of their own.
    vectors : F32, shape (N, E)
    facts : pl.DataFrame, N rows
        ``symbol`` and what is known of it, text; null where unknown.
    told : tuple of str
        Attributes that the model was given beside the symbol (``--static``).
    moved : Movement
        How long the vectors are beside fresh ones.
    left_out : tuple of str
        Why rows of the table of facts given for this once are not used.
    """

    run: str
    market: str
    symbols: tuple[str, ...]
    vectors: F32
    facts: pl.DataFrame
    told: tuple[str, ...]
    moved: Movement
    left_out: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Facts that group symbols: at least two values, and fewer of them than half the symbols."""
        values = self.facts.drop("symbol", NAME, strict=False)
        return tuple(one.name for one in values if 2 <= one.drop_nulls().n_unique() <= len(one) // 2)

    def neighbours(self, symbol: str = "", k: int = 10) -> pl.DataFrame:
        """Return the k nearest of one symbol, or of every one: ``symbol, rank, neighbour, cosine`` and facts.

        Raises
        ------
        SymbolError
            When the symbol has no vector, with the nearest names.
        UsageError
            When there are not so many others.
        """
        wanted = resolve_names([symbol], self.symbols, self.market) if symbol else self.symbols
        places = {name: position for position, name in enumerate(self.symbols)}
        rows = pl.Series([places[name] for name in wanted], dtype=pl.Int64).to_numpy()
        found, similar = nearest(directions(self.vectors), k, rows)
        shown = self.facts.select("symbol", pl.col(f"^{NAME}$"), *self.columns)
        return pl.DataFrame(
            {
                "symbol": [name for name in wanted for _ in range(k)],
                "rank": list(range(1, k + 1)) * len(wanted),
                "neighbour": [self.symbols[position] for position in found.ravel()],
                "cosine": similar.ravel(),
            }
        ).join(shown, left_on="neighbour", right_on="symbol", how="left", maintain_order="left")

    def purity(self, column: str, k: int = 10) -> Purity:
        """Measure how often neighbours share a fact, beside shuffled labels.

        Raises
        ------
        UsageError
            When nothing is known of that name, or of too few symbols.
        """
        return purity(self.vectors, self.labels(column), column, k)

    def labels(self, column: str) -> list[str]:
        """Return a fact of each symbol, empty where unknown.

        Raises
        ------
        UsageError
            When nothing is known of that name.
        """
        if column not in self.columns:
            known = f"; known: {', '.join(self.columns)}" if self.columns else ""
            raise UsageError(
                f"no symbol here has a known `{column}`{known}",
                f"barcast data facts FILE.csv, or --facts FILE.csv, with the columns symbol and {column}",
            )
        return self.facts[column].fill_null("").to_list()

    def to_frame(self) -> pl.DataFrame:
        """Return ``symbol``, what is known of it, and the vector as columns ``e0``, ``e1``, ..."""
        values = {f"e{place}": self.vectors[:, place] for place in range(self.vectors.shape[1])}
        return pl.concat([self.facts, pl.DataFrame(values)], how="horizontal")

    def write(self, path: Path) -> None:
        """Write vectors with symbol and facts, as Parquet, CSV or TSV by the name's ending."""
        check_file(path, EXPORT_ENDINGS, "--export")
        frame = self.to_frame()
        with atomic_path(path) as temporary:
            if path.suffix.lower() == ".parquet":
                frame.write_parquet(temporary)
            else:
                frame.write_csv(temporary, separator="\t" if path.suffix.lower() == ".tsv" else ",")

    def draw(self, path: Path, said: Sequence[Text] = ()) -> None:
        """Write a self-contained page with the symbols on the two widest axes of their vectors (PCA).

        Parameters
        ----------
        said : sequence of Text
            What purities mean (`purity_in_words`), for below the picture.
        """
        check_file(path, (".html",), "--map")
        from barcast.reports.map import MapData, write_map

        places, shares = principal_axes(self.vectors)
        named = NAME in self.facts.columns
        data = MapData(
            run=self.run,
            width=self.vectors.shape[1],
            shares=(float(shares[0]), float(shares[1])),
            symbols=self.symbols,
            names=tuple(self.facts[NAME].fill_null("")) if named else ("",) * len(self.symbols),
            x=tuple(places[:, 0].tolist()),
            y=tuple(places[:, 1].tolist()),
            groups={column: tuple(self.labels(column)) for column in self.columns},
            warnings=tuple(self.warnings()),
            purity=tuple(said),
        )
        write_map(path, data)

    def warnings(self) -> list[Text]:
        """Say when the vectors mean nothing, what moving does not mean, and which facts are not used."""
        moved, n = self.moved, len(self.symbols)
        ratio = f"{moved.ratio:.2f} ({moved.fresh_low:.2f} .. {moved.fresh_high:.2f})"
        unread = [
            Text(
                f"{len(self.left_out):,} left out of the table of facts, e.g. {reason}",
                f"资料表中有 {len(self.left_out):,} 处未采用，例如 {reason}",
            )
            for reason in self.left_out[:1]
        ]
        if not moved.has_moved:
            return [
                *unread,
                Text(
                    f"the {n:,} vectors are as long as fresh random ones (ratio {ratio}): this run learned "
                    "nothing about who is who, and neighbours and map are chance",
                    f"{n:,} 个向量与刚初始化的随机向量一样长（比值 {ratio}）："
                    "这次训练没有学到标的之间的差别，近邻与地图都只是偶然",
                ),
            ]
        return [
            *unread,
            Text(
                f"the {n:,} vectors are longer than fresh random ones (ratio {ratio}); moving alone is no "
                "knowledge, since noise moves them too: see purity",
                f"{n:,} 个向量比刚初始化的随机向量更长（比值 {ratio}）；"
                "但仅仅移动不等于学到了东西，噪声同样会推动它们：请看纯度",
            ),
        ]


def purity_in_words(found: Purity, told: Sequence[str] = ()) -> Text:
    """Say what a purity means."""
    column, times = found.column, found.value / found.chance if found.chance else float("inf")
    span = f" [{found.low:.2%}, {found.high:.2%}]" if math.isfinite(found.low) else ""
    numbers = (
        f"{found.value:.2%}{span}",
        f"{found.chance:.2%} [{found.chance_low:.2%}, {found.chance_high:.2%}]",
        f"p = {found.p_value:.3f}",
    )
    text = Text(
        f"of the {found.k} nearest neighbours {numbers[0]} share the symbol's `{column}`; under shuffled "
        f"labels {numbers[1]}, {numbers[2]} ({counted(found.num_symbols, 'symbol')}, "
        f"{found.num_labels} values, {found.num_shuffles:,} shuffles):",
        f"{found.k} 个最近邻中有 {numbers[0]} 与该标的的 `{column}` 相同；"
        f"打乱标签后为 {numbers[1]}，{numbers[2]}"
        f"（{found.num_symbols:,} 个标的，{found.num_labels} 个取值，打乱 {found.num_shuffles:,} 次）：",
    )
    if found.is_clear:
        text += Text(f"more than chance, {times:.2f} times of it.", f"超过偶然水平，是其 {times:.2f} 倍。")
    elif found.is_more_than_chance:
        text += Text(
            f"rarely so by shuffling, but near chance all the same: {times:.2f} times of it.",
            f"打乱标签很少能达到，但仍接近偶然水平：是其 {times:.2f} 倍。",
        )
    else:
        text += Text(
            f"no more than chance, so the embedding does not know `{column}`.",
            f"没有超过偶然水平，即嵌入并不了解 `{column}`。",
        )
    if column in told:
        text += Text(
            f"The model was told `{column}` by an embedding of its own, so the symbol's need not hold it.",
            f"模型另有专门的嵌入来表示 `{column}`，因此标的嵌入不必包含它。",
        )
    return text


def read_embeddings(
    workspace: Workspace, run: RunFolder, *, facts: Path | str | pl.DataFrame | None = None
) -> SymbolEmbeddings:
    """Read the symbol embeddings of a finished run, and what the store (and ``facts``) know of the symbols.

    Raises
    ------
    RunError
        When the run is not finished, its weights are gone, or its model has no embedding.
    DataError
        When the table of facts cannot be read.
    """
    check_done(run)
    check_one_model(run)
    check_there(run, run.weights, "weights")
    from safetensors import safe_open

    from barcast.models.identity import INITIAL_STD, OWN_TABLE

    with safe_open(run.weights, framework="numpy") as file:
        # an ensemble has a table for each seed: a symbol is where it is in all of them
        tables = [name for name in file.keys() if name.endswith(OWN_TABLE)]  # noqa: SIM118 - not a dict
        if not tables:
            raise RunError(
                f"`{run.name}` has no symbol embedding: a {run.info['model']} without identity",
                "choose a network that was trained with --stock-embedding-dim above 0: barcast runs",
            )
        vectors: F32 = np.hstack([file.get_tensor(name)[1:] for name in tables])
    symbols = tuple(run.read("state.json")["vocabulary"])
    store = MarketStore.open(workspace.market)
    known = store.facts()
    told = Told(known) if facts is None else read_facts(facts, store.meta.market)
    known = join_facts(known, told.facts)
    names = known_attributes(known, store.meta.market)
    values = values_of(known, store.meta.market, names, symbols)
    table = pl.DataFrame({"symbol": symbols, **values}).with_columns(pl.col(names).replace("", None))
    kept = [name for name in names if table[name].null_count() < len(table)]
    return SymbolEmbeddings(
        run=run.name,
        market=store.meta.market,
        symbols=symbols,
        vectors=vectors,
        facts=table.select("symbol", *kept),
        told=tuple(run.read("config.json")["options"].get("static", ())),
        moved=movement(vectors, INITIAL_STD),
        left_out=told.left_out,
    )


def check_file(path: Path, endings: Sequence[str], flag: str) -> None:
    """Refuse a place that cannot be written to before anything is computed.

    Raises
    ------
    UsageError
        On a folder, or an ending that says no known format.
    """
    refuse_folder(path)
    if path.suffix.lower() not in endings:
        raise UsageError(f"{path} does not end in {', '.join(endings)}", f"{flag} {path.stem}{endings[0]}")


def plain(embeddings: SymbolEmbeddings, neighbours: pl.DataFrame, found: Sequence[Purity]) -> dict[str, Any]:
    """Return plain values for JSON."""
    moved = embeddings.moved
    return {
        "run": embeddings.run,
        "num_symbols": len(embeddings.symbols),
        "width": embeddings.vectors.shape[1],
        "length_beside_fresh": {"ratio": moved.ratio, "low": moved.fresh_low, "high": moved.fresh_high},
        "has_moved": moved.has_moved,
        "purity": [vars(one) | {"more_than_chance": one.is_more_than_chance} for one in found],
        "neighbours": neighbours.to_dicts(),
        "warnings": [text.en for text in embeddings.warnings()],
    }
