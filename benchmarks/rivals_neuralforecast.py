"""The neuralforecast side of rivals_bench.py; runs in its own environment and knows nothing of barcast.

It forecasts a series' next value. The series is given the label of bar t as its value at t + 1, the inputs are
historic exogenous columns, h is 1: the forecast after bar t is the label of t. The series' own past is left out
(``exclude_insample_y``), because labels of the bars before overlap the one that is asked for. No scaler, its own
MSE, no validation, one linear layer as decoder: LSTM 64 x 2 and a linear head, as the others.
"""

import logging
import warnings

import neuralforecast
import numpy as np
import pytorch_lightning as lightning
import torch
from neuralforecast.losses.pytorch import MSE
from neuralforecast.models import LSTM
from neuralforecast.tsdataset import TimeSeriesDataset

from rivals_course import LOOK_BACK, grid_of, main

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")


class Count(lightning.Callback):
    """Tell the course about every step; windows without a label are not drawn, so all have one."""

    def __init__(self, course):
        self.course = course

    def on_train_start(self, trainer, network):
        """Start the clock when the first batch is about to be fetched."""
        self.course.begin(network, lambda windows: network(as_batch(windows)))
        self.num_windows = 0
        network.register_forward_pre_hook(self.note)

    def note(self, network, arguments):
        """Remember how many windows the step has drawn."""
        self.num_windows = len(arguments[0]["insample_y"])

    def on_train_batch_end(self, trainer, network, *_):
        """Count the step."""
        if self.course.add(self.num_windows):
            trainer.should_stop = True


def as_batch(windows):
    """Return what the network's forward reads, for windows (B, L, F)."""
    return {
        "insample_y": windows.new_zeros(*windows.shape[:2], 1), "hist_exog": windows, "futr_exog": None,
        "stat_exog": None,
    }  # fmt: skip


class NeuralForecast:
    """Its LSTM on a TimeSeriesDataset in memory."""

    version = neuralforecast.__version__
    probes = grid_of(threads=(2, 1), precision=("32", "bf16"))
    #: Series of a step, and windows drawn from them (None: all): few series make its own gathering cheap.
    grid = tuple(
        {"series": series, "batch": batch, "lr": lr}
        for series, batch in ((4, None), (1, None), (16, 2048))
        for lr in (1e-3, 3e-3)
    )

    def __init__(self, panel):
        self.names = [f"x{i}" for i in range(panel.inputs.shape[1])]
        lives = list(panel.trimmed_lives())
        sizes = [stop - start + 1 for start, stop in lives]  # one more: the last label comes a bar later
        ends = np.cumsum(sizes)
        values = np.zeros((ends[-1], len(self.names) + 2), np.float32)
        for (start, stop), size, end in zip(lives, sizes, ends, strict=True):
            own, label = values[end - size : end], panel.target[start:stop]
            own[:-1, 1:-1] = panel.inputs[start:stop]
            own[1:, 0], own[1:, -1] = np.nan_to_num(label), np.isfinite(label)
        indptr = np.concatenate([[0], ends])
        columns = ["y", *self.names, "available_mask"]
        self.dataset = TimeSeriesDataset(temporal=values, temporal_cols=columns, indptr=indptr, y_idx=0)

    def train(self, settings, course):
        """Fit with its own trainer until the time is over."""
        torch.set_float32_matmul_precision("highest")
        model = LSTM(
            h=1, input_size=LOOK_BACK, encoder_n_layers=2, encoder_hidden_size=64, decoder_layers=1,
            hist_exog_list=self.names, exclude_insample_y=True, loss=MSE(), scaler_type="identity",
            learning_rate=settings["lr"], batch_size=settings["series"], windows_batch_size=settings["batch"],
            max_steps=10**8, val_check_steps=10**8, early_stop_patience_steps=-1, random_seed=0,
            precision="bf16-mixed" if settings["precision"] == "bf16" else "32-true",
            callbacks=[Count(course)], logger=False, enable_progress_bar=False, enable_model_summary=False,
            accelerator="cpu", devices=1,
        )  # fmt: skip
        model.fit(self.dataset)


if __name__ == "__main__":
    main({"neuralforecast": NeuralForecast})
