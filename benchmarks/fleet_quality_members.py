"""What the members of a fleet's stored ensembles say of the rows that judge them, for `fleet_quality_bench.py`."""

from dataclasses import dataclass

import numpy as np

from common import workspace_for


def by_session(values: np.ndarray, session: np.ndarray) -> np.ndarray:
    """Mean of finite values by session."""
    known = np.isfinite(values)
    num = int(session.max()) + 1
    count = np.bincount(session[known], minlength=num)
    with np.errstate(invalid="ignore"):
        return np.bincount(session[known], values[known], num) / count


@dataclass(frozen=True)
class Members:
    """What each member says of the labelled rows of a segment: n rows, K members, zero the last."""

    names: tuple[str, ...]
    output: np.ndarray  # (n, K)
    weights: np.ndarray  # (n, K), of the row's symbol
    y: np.ndarray
    density: np.ndarray  # (n, K)
    session: np.ndarray

    @classmethod
    def of(cls, market: str, name: str, segment: str) -> "Members":
        """Let the stored ensembles of a fleet answer."""
        from barcast.core.predictions import SEGMENTS as NAMES
        from barcast.core.runs import open_run
        from barcast.core.workspace import Workspace
        from barcast.ensemble.densities import fit_widths, log_densities
        from barcast.fleet.ledger import LEDGER, Ledger
        from barcast.pipeline.dataset import build_dataset, resolve_features
        from barcast.pipeline.fleet_rows import fleet_data, owners_of
        from barcast.pipeline.fleet_trees import TREES
        from barcast.pipeline.fleet_weights import WEIGHTS
        from barcast.pipeline.market import load_market
        from barcast.pipeline.settings import from_run

        place = Workspace.find(workspace_for(market))
        run = open_run(place, name)
        config = from_run(run.read("config.json"))
        dataset = build_dataset(
            load_market(place, config.data),
            place,
            resolve_features(place, config.data.features),
            tabular=True,
        )
        data, packed = fleet_data(dataset), TREES.served(run).packed
        with Ledger.open(run.fleet / LEDGER) as ledger:
            kept, constants = ledger.pooled(WEIGHTS), ledger.meta()["constants"]
        places = {symbol: position for position, symbol in enumerate(packed.symbols)}
        owner = np.array([places.get(symbol, -1) for symbol in data.symbols])

        def rows_of(name: str) -> np.ndarray:
            known = np.isfinite(data.target[:, 0]) & (data.segment == NAMES.index(name))
            rows = np.flatnonzero(known)
            return rows[owner[owners_of(data, rows)] >= 0]

        before, rows = rows_of("stop"), rows_of(segment)
        counts = np.bincount(owners_of(data, before), minlength=len(data.symbols))
        width = fit_widths(
            data.target[before, 0].astype(float), np.ones(len(before)), np.concatenate([[0], np.cumsum(counts)])
        )  # fmt: skip
        symbol = owners_of(data, rows)
        trees = packed.members(np.asarray(data.inputs[rows], np.float32), owner[symbol])[:, 0]
        fixed = np.broadcast_to(constants["values"][0], (len(rows), len(constants["names"])))
        output = np.concatenate([trees, fixed], axis=1)
        by_symbol = np.array([kept[one][0]["weights"] for one in packed.symbols])
        y = data.target[rows, 0].astype(float)
        session = data.session[rows].astype(np.int64)
        return cls(
            ("forest", "xgboost", "lightgbm", *constants["names"]), output, by_symbol[owner[symbol]], y,
            log_densities(y, output, width[symbol]), session - session.min(),
        )  # fmt: skip

    def mixtures(self) -> dict[str, dict[str, float] | None]:
        """Weights by member of what is compared; None: each symbol's own."""
        trees = [name for name in self.names if name in ("forest", "xgboost", "lightgbm")]
        return {
            "BMA": None,
            "equal weights of the trees": dict.fromkeys(trees, 1 / len(trees)),
            "equal weights, zero among them": dict.fromkeys(self.names, 1 / len(self.names)),
            **{name: {name: 1.0} for name in self.names},
        }

    def _shares(self, weights: dict[str, float] | None) -> np.ndarray:
        if weights is None:
            return self.weights
        return np.broadcast_to([weights.get(name, 0.0) for name in self.names], self.output.shape)

    def rank_ic(self, weights: dict[str, float] | None) -> np.ndarray:
        """RankIC by session of a weighted mean."""
        from barcast.evaluation.metrics import rank_ic

        score = (self._shares(weights) * self.output).sum(axis=1)
        return rank_ic(self.y, score, self.session, int(self.session.max()) + 1)

    def log_score(self, weights: dict[str, float] | None) -> np.ndarray:
        """Mean log density of the mixture by session."""
        from barcast.ensemble.densities import mixture_log_score

        return by_session(mixture_log_score(self.density, self._shares(weights)), self.session)
