"""From the bundled sample to a forecast, in Python.

python examples/train_and_predict.py [FOLDER]
"""

import sys
from pathlib import Path

import barcast
from barcast.sources import sample_source


def main(folder: Path) -> None:
    """Import the sample, train ridge, compare, refit, predict."""
    # five US shares, daily, as traded; a path, a list of paths or a frame would do as well
    imported = barcast.import_data(
        sample_source(), workspace=folder, market="us", basis="raw", volume_unit="share"
    )
    if imported.published:  # the second time there is nothing new
        print(f"{imported.num_symbols} symbols, {imported.num_rows} bars")

    result = barcast.train("ridge", workspace=folder, horizons=(5,), final=True)
    print(result.compared.comparisons[0].verdict.en)
    print(f"report: {result.report}")

    forecasts = barcast.predict(workspace=folder)
    print(f"as of {forecasts.asof}, to the close of {forecasts.for_session}")
    print(forecasts.table.select("symbol", "y_hat", "sigma", "p_up"))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "example-workspace"))
