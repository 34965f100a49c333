"""From the bundled sample to a forecast, in Python.

python examples/train_and_predict.py [FOLDER]
"""

import sys
from pathlib import Path

import barcast
from barcast.sources.sample import sample_frame


def main(folder: Path) -> None:
    """Import a frame, train ridge, compare, refit, predict."""
    frame = sample_frame()
    imported = barcast.import_data(frame, workspace=folder, market="us", basis="raw")
    print(f"{imported.num_symbols} symbols, {imported.num_rows} bars")

    result = barcast.train("ridge", workspace=folder, horizons=(5,), final=True)
    print(result.compared.comparisons[0].verdict.en)

    forecasts = barcast.predict(workspace=folder)
    print(f"as of {forecasts.asof}, to the close of {forecasts.for_session}")
    print(forecasts.table.select("symbol", "y_hat", "sigma", "p_up"))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "example-workspace"))
