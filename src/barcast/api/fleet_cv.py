"""Purged cross-validation of a fleet in Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from barcast.api.checked import checked
from barcast.api.places import Names, Place, place_of, symbols_of
from barcast.core.progress import Progress

if TYPE_CHECKING:
    from barcast.pipeline.fleet_folds import CrossValidation


@checked
def fleet_cross_validation(
    symbols: Names | None = None, *, kind: str = "trees", workspace: Place = None, folds: int = 5,
    scheme: str = "expanding", embargo: int = 0, train_share: float = 0.5, limit: int = 0,
    config: Path | str | None = None, max_memory: str | int | None = None, workers: int | None = None,
    progress: bool = False, **options: Any,
) -> CrossValidation:  # fmt: skip
    """Fit and judge a fleet on purged folds of the sessions before `route`; the same call goes on.

    Parameters
    ----------
    symbols : str or sequence of str, optional
        Who is fitted, in any spelling; left out: everybody.
    kind : str
        ``trees``, ``lstm`` or ``gru``.
    scheme : str
        ``expanding``: a fold learns from all that came before; ``rolling``: from as many days as the first.
    embargo : int
        Sessions left out between what teaches and what judges, beyond the purge.
    train_share : float
        Share of the sessions before the first that is judged.
    limit : int
        Only so many symbols, drawn by the seed; 0: all.
    max_memory : str or int, optional
        Of all processes together: ``"8G"``, or bytes.
    **options
        As the command's flags: ``preset``, ``min_rows``, ``features``, ``horizons``, ``seed``, ...

    Raises
    ------
    UsageError
        On folds that leave a part without a label.
    DataError
        When no symbol can be fitted in any fold.
    """
    from barcast.pipeline.fleet_cv import CvOptions
    from barcast.pipeline.fleet_cv import fleet_cross_validation as cross_validate
    from barcast.pipeline.fleet_options import fleet_how, fleet_model
    from barcast.pipeline.settings import resolve

    place, wanted = place_of(workspace), symbols_of(symbols)
    cut = CvOptions(folds=folds, scheme=scheme, embargo=embargo, train_share=train_share)
    resolved = resolve(place, fleet_model(kind), options, None if config is None else Path(config))
    return cross_validate(
        place, resolved, cut, symbols=wanted, limit=limit, progress=Progress(enabled=progress),
        how=fleet_how(workers=workers, max_memory=max_memory),
    )  # fmt: skip
