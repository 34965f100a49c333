"""Fleets on users' own frames in Python, without a workspace."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from barcast.api.checked import checked
from barcast.core.errors import UsageError
from barcast.core.progress import Progress

if TYPE_CHECKING:
    from barcast.pipeline.fleet import FleetHow
    from barcast.pipeline.fleet_folds import CrossValidation
    from barcast.pipeline.fleet_frames import FrameFleet, FrameOptions
    from barcast.pipeline.frame_tables import Column, Frame


class FleetTrainer:
    """Fits a forest, XGBoost and LightGBM for each symbol on frames of one's own, averaged by their evidence.

    The engine is that of ``barcast fleet trees``: one ledger, any number of workers, lighter presets for
    symbols that would take longer than the target allows.

    Parameters
    ----------
    target_time_per_symbol : float, optional
        Seconds of computing that one symbol may take; a symbol gets the heaviest preset up to ``preset`` that
        is expected to. None: any.
    batch_size : int
        Most symbols that a worker is handed at a time. Nothing hangs on it after a kill: each finished symbol
        is kept at once.
    max_memory_gb : float, optional
        Of all processes together, the caller's included; fewer workers run where it asks for that.
    checkpointing : bool
        Whether ``fit`` goes on where an earlier one in the same folder was killed, and keeps every symbol
        whose rows and settings are the same. False: it begins anew, whatever is there.
    preset : str
        ``extreme``, ``fast``, ``standard``, ``high`` or ``published``.
    min_rows : int
        Fewest training rows of a model.
    label_sessions : int
        How many rows after its own a target reaches: 1 for the return up to the next row, 6 for that of five
        rows entered a row later. Rows whose targets reach into what judges them do not teach.
    validation_share : float
        Share of the calendar, at its end, that judges and neither teaches nor chooses.
    workers : int, optional
        By default one a core.
    executor : str
        ``serial``, ``processes`` or ``ray`` (with ``address`` of a cluster).
    seed : int
        Of everything random.
    symbol_config : mapping, optional
        Options of single symbols: ``{"AAPL": {"min_rows": 300, "xgboost": {"max_depth": 3}}}``.
    index : str
        Column that holds the index: polars frames need one, pandas frames have their own.
    progress : bool
        Whether to say on stderr how it goes.

    Raises
    ------
    UsageError
        On values that make no sense.
    """

    @checked
    def __init__(
        self, target_time_per_symbol: float | None = 1.0, batch_size: int = 50,
        max_memory_gb: float | None = 8.0, checkpointing: bool = True, *, preset: str = "standard",
        min_rows: int = 500, label_sessions: int = 1, validation_share: float = 0.2,
        workers: int | None = None, executor: str = "processes", address: str = "", seed: int = 0,
        symbol_config: Mapping[str, Mapping[str, Any]] | None = None, index: str = "", progress: bool = False,
    ) -> None:  # fmt: skip
        if batch_size < 1:
            raise UsageError(f"batch_size={batch_size}: a number of symbols", "without it it is 50")
        if max_memory_gb is not None and not max_memory_gb > 0:
            raise UsageError(f"max_memory_gb={max_memory_gb}: gigabytes above 0", "without it it is 8")
        self._takes: dict[str, Any] = {
            "time_per_symbol": target_time_per_symbol, "workers": workers, "executor": executor,
            "address": address,
            "max_memory": None if max_memory_gb is None else int(max_memory_gb * 2**30),
        }  # fmt: skip
        self._shapes: dict[str, Any] = {
            "preset": preset, "min_rows": min_rows, "label_sessions": label_sessions, "seed": seed,
            "validation_share": validation_share, "index": index, "symbol_options": dict(symbol_config or {}),
        }  # fmt: skip
        self._batch_size, self._fresh, self._progress = batch_size, not checkpointing, Progress(progress)

    def fit(
        self, features: Mapping[str, Frame], targets: Mapping[str, Column], save_dir: Path | str
    ) -> FrameFleet:
        """Fit a model for each symbol that has the rows; one that cannot be used is a failure with a reason.

        Where the folder holds a fleet, who loaded it before goes on; ``load`` refuses until the fit ends.
        What comes out is what these frames alone give: a symbol whose frame cannot be used, is too short, or
        is not given any more keeps no model of an earlier fit, and ``summary["dropped"]`` says why.

        Parameters
        ----------
        features : mapping of str to pandas (or polars) frame
            Columns of numbers, the same for all symbols; an index in order, of one kind for all symbols. A
            row that lacks a value teaches and judges nothing.
        targets : mapping of str to series
            NaN, or no row, where unknown. A pandas series is joined by its index, a polars one row by row.
        save_dir : path
            Where models, the ledger and ``training_summary.json`` rest.

        Returns
        -------
        FrameFleet
            With ``summary`` (``successful_stocks``, ``failed_stocks``, ``failures``, ``dropped``,
            ``total_training_time_hours`` of this call, ``validation``, ``symbols``, ...) and ``predict``.

        Raises
        ------
        UsageError
            On settings, or a calendar, that leave a part without a row.
        DataError
            When no symbol can be given a model.
        """
        from barcast.pipeline.fleet_frames import fit_frames

        return fit_frames(
            features, targets, Path(save_dir), self._options(), self._how(len(features)), fresh=self._fresh,
            progress=self._progress,
        )  # fmt: skip

    def cross_validate(
        self, features: Mapping[str, Frame], targets: Mapping[str, Column], *, folds: int = 5,
        scheme: str = "expanding", embargo: int = 0, train_share: float = 0.5,
        save_dir: Path | str | None = None,
    ) -> CrossValidation:  # fmt: skip
        """Judge the same fit by purged folds in order of time; parameters as of ``fleet_cross_validation``.

        Folds are fitted within the same time a symbol and memory as by ``fit``.

        Parameters
        ----------
        save_dir : path, optional
            Where folds rest, so that a killed call goes on; by default nothing is kept.
        """
        from barcast.pipeline.fleet_cv import CvOptions
        from barcast.pipeline.fleet_frames import cross_validate_frames

        cut = CvOptions(folds=folds, scheme=scheme, embargo=embargo, train_share=train_share)
        return cross_validate_frames(
            features, targets, self._options(), cut, self._how(len(features)),
            folder=None if save_dir is None else Path(save_dir), progress=self._progress,
        )  # fmt: skip

    @staticmethod
    def load(save_dir: Path | str) -> FrameFleet:
        """Open what ``fit`` left in a folder.

        Raises
        ------
        RunError
            Where no fit was finished, and while one is at work.
        """
        from barcast.pipeline.fleet_frames import FrameFleet

        return FrameFleet.load(Path(save_dir))

    def _options(self) -> FrameOptions:
        from barcast.pipeline.fleet_frames import FrameOptions

        return FrameOptions(**self._shapes)

    def _how(self, num_symbols: int) -> FleetHow:
        from dataclasses import replace

        from barcast.pipeline.fleet_options import fleet_how

        how = fleet_how(**self._takes)
        # of a small fleet no worker shall have everything while others have nothing
        most = math.ceil(num_symbols / (4 * how.limits.workers))
        return replace(how, batch_size=max(min(self._batch_size, most), 1))
