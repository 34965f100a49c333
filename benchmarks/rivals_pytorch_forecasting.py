"""The pytorch-forecasting side of rivals_bench.py; runs in its own environment and knows nothing of barcast.

Its RecurrentNetwork of LSTM cells, 64 x 2, encodes bars and decodes one: prediction length 1, the inputs are
reals known at the bar that is decoded. The network always reads the target's value of the bar before; here it
reads zero instead, because labels of the bars before overlap the one that is asked for. No scaling, squared error.
It drops the first encoded step, so 60 encoded bars and one decoded make windows of 60 bars. With a prediction
length of 120 the same network learns from a stretch: it decodes with known inputs, and its weight column says
which bars have a label.
"""

import logging
import warnings

import lightning
import numpy as np
import pandas as pd
import pytorch_forecasting
import torch
from pytorch_forecasting import RecurrentNetwork, TimeSeriesDataSet
from pytorch_forecasting.data.encoders import TorchNormalizer
from pytorch_forecasting.metrics import RMSE

from rivals_course import PAD, STRETCH, grid_of, main

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")


class WithoutPast(RecurrentNetwork):
    """The target's own past reads as zero."""

    def construct_input_vector(self, *arguments, **options):
        """Return what the recurrent layers read."""
        inputs = super().construct_input_vector(*arguments, **options)
        inputs[..., self.target_positions] = 0.0
        return inputs


class Count(lightning.Callback):
    """Tell the course about every step."""

    def __init__(self, course):
        self.course = course

    def on_train_start(self, trainer, network):
        """Start the clock when the first batch is about to be fetched."""

        def predict(windows):
            reals = torch.cat([windows, windows.new_zeros(*windows.shape[:2], 1)], dim=-1)
            return network.output_projector(network.rnn(reals)[0][:, -1])

        assert network.target_positions.tolist() == [len(network.reals) - 1]
        self.course.begin(network, predict)

    def on_train_batch_end(self, trainer, network, outputs, batch, number):
        """Count the step."""
        if self.course.add(batch[1][1].sum()):
            trainer.should_stop = True


class PytorchForecasting:
    """Its network on a TimeSeriesDataSet and its DataLoader."""

    version = pytorch_forecasting.__version__
    probes = grid_of(threads=(2, 1), precision=("32", "bf16"), workers=(0, 2))
    grid = grid_of(batch=(1024, 256, 4096), lr=(1e-3, 3e-3))

    def __init__(self, panel, length=1):
        names = [f"x{i:02}" for i in range(panel.inputs.shape[1])]
        rows = np.concatenate([np.arange(start, stop) for start, stop in panel.trimmed_lives()])
        life = np.searchsorted(panel.lives, rows, side="right") - 1
        known = np.isfinite(panel.target[rows])
        frame = pd.DataFrame(panel.inputs[rows], columns=names)
        frame["life"] = np.char.zfill(life.astype(str), 6)  # sorted as they come: places stay what they are
        frame["time"] = rows - panel.lives[life]
        frame["target"], frame["known"] = np.nan_to_num(panel.target[rows]), known.astype(np.float32)
        self.dataset = TimeSeriesDataSet(
            frame, time_idx="time", target="target", group_ids=["life"], weight="known",
            min_encoder_length=PAD, max_encoder_length=PAD, min_prediction_length=length,
            max_prediction_length=length, time_varying_known_reals=names,
            time_varying_unknown_reals=["target"], scalers=dict.fromkeys(names),
            target_normalizer=TorchNormalizer(method="identity"),
        )  # fmt: skip
        index, seen = self.dataset.index, np.concatenate([[0], np.cumsum(known)])
        end = index["index_end"].to_numpy() + 1
        self.dataset.index = index[seen[end] > seen[end - length]].reset_index(drop=True)

    def train(self, settings, course):
        """Fit with Lightning's trainer until the time is over."""
        network = WithoutPast.from_dataset(
            self.dataset, cell_type="LSTM", hidden_size=64, rnn_layers=2, dropout=0.0,
            loss=RMSE(reduction="mean"), logging_metrics=torch.nn.ModuleList(), log_interval=-1,
            learning_rate=settings["lr"], optimizer="adam",
        )  # fmt: skip
        loader = self.dataset.to_dataloader(
            train=True, batch_size=settings["batch"], num_workers=settings["workers"]
        )
        trainer = lightning.Trainer(
            max_epochs=10**6, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=False, callbacks=[Count(course)],
            precision="bf16-mixed" if settings["precision"] == "bf16" else "32-true",
        )  # fmt: skip
        trainer.fit(network, loader)


class Decoding(PytorchForecasting):
    """The same with its own way to many labels a pass: a prediction length of a whole stretch."""

    grid = grid_of(batch=(64, 16, 256), lr=(1e-3, 3e-3))

    def __init__(self, panel):
        super().__init__(panel, STRETCH)


if __name__ == "__main__":
    main({"pytorch_forecasting": PytorchForecasting, "pytorch_forecasting_stretches": Decoding})
