"""The qlib sides of rivals_bench.py; runs in qlib's own environment and knows nothing of barcast.

- ``qlib``: `pytorch_lstm`, its own epochs. Its table of flat windows would need 35 GB here, so the table it is
  given gathers the rows that are asked for: the fastest form its loop can have.
- ``qlib_ts``: `pytorch_lstm_ts` with a TSDataSampler and a DataLoader, as qlib's examples run windows.
- ``qlib_stretches``: the network of `pytorch_lstm`, its optimizer, loss and clipping, on stretches.
"""

from types import SimpleNamespace

import numpy as np
import qlib
import torch

from rivals_course import LOOK_BACK, PAD, STRETCH, Over, grid_of, main, precision_of

ARITHMETIC = grid_of(threads=(2, 1), precision=("32", "bf16"))


class Table:
    """Flat windows (N, F * L) that are gathered when they are asked for; each request ends the step before."""

    def __init__(self, panel, course):
        self.panel, self.course, self.pending = panel, course, 0
        self.values = self

    def __len__(self):
        return len(self.panel.teach)

    def __getitem__(self, which):
        if self.pending and self.course.add(self.pending):
            raise Over
        self.pending = len(which)
        return self.panel.columns(self.panel.teach[which]).flatten(1).numpy()


class FromTable:
    """`pytorch_lstm`."""

    version = qlib.__version__
    probes = ARITHMETIC
    grid = grid_of(batch=(2000, 500, 8000), lr=(1e-3, 3e-3))

    def __init__(self, panel):
        self.panel = panel

    def model(self, settings):
        """Return qlib's model object."""
        from qlib.contrib.model.pytorch_lstm import LSTM

        features = self.panel.inputs.shape[1]
        return LSTM(d_feat=features, lr=settings["lr"], batch_size=settings["batch"], GPU=-1, seed=0)

    def train(self, settings, course):
        """Let qlib's own epochs follow each other until the time is over."""
        model = self.model(settings)
        network = model.lstm_model
        course.begin(network, lambda windows: network(windows.transpose(1, 2).flatten(1)))
        target = SimpleNamespace(values=self.panel.target[self.panel.teach])
        table = Table(self.panel, course)
        with precision_of(settings):
            try:
                while True:
                    model.train_epoch(table, target)
            except Over:
                return


class FromSampler:
    """`pytorch_lstm_ts`."""

    version = qlib.__version__
    probes = grid_of(threads=(2, 1), precision=("32", "bf16"), workers=(0, 2))
    grid = FromTable.grid[:1]

    def __init__(self, panel):
        import pandas as pd
        from qlib.data.dataset import TSDataSampler

        self.panel = panel
        rows = np.concatenate([np.arange(start, stop) for start, stop in panel.trimmed_lives()])
        life = np.searchsorted(panel.lives, rows, side="right") - 1
        # Its windows follow a calendar; positions in the life stand for days, so that they are own bars.
        day = pd.Timestamp("2000-01-01") + pd.to_timedelta(rows - panel.lives[life], unit="D")
        index = pd.MultiIndex.from_arrays([day, life], names=["datetime", "instrument"])
        values = np.column_stack([panel.inputs[rows], panel.target[rows]])
        teach = pd.Series(np.isfinite(panel.target[rows]), index=index)
        frame = pd.DataFrame(values, index=index)
        self.sampler = TSDataSampler(
            frame, day.min(), day.max(), LOOK_BACK, dtype=np.float32, flt_data=teach.sort_index()
        )

    def train(self, settings, course):
        """Feed qlib's own epoch from its DataLoader until the time is over."""
        from qlib.contrib.model.pytorch_lstm_ts import LSTM
        from qlib.model.utils import ConcatDataset
        from torch.utils.data import DataLoader

        features = self.panel.inputs.shape[1]
        model = LSTM(d_feat=features, lr=settings["lr"], batch_size=settings["batch"], GPU=-1, seed=0)
        network = model.LSTM_model
        loader = DataLoader(
            ConcatDataset(self.sampler, np.ones(len(self.sampler))), batch_size=settings["batch"],
            shuffle=True, num_workers=settings["workers"], drop_last=True,
        )  # fmt: skip
        course.begin(network, network)

        def batches():
            while True:
                for batch in loader:
                    yield batch
                    if course.add(len(batch[0])):
                        return

        with precision_of(settings):
            model.train_epoch(batches())


class OnStretches(FromTable):
    """The network of `pytorch_lstm` with its head at every step of a stretch."""

    grid = grid_of(batch=(128, 32, 512), lr=(1e-3, 3e-3))

    def train(self, settings, course):
        """Adam, squared error and clipping by value as in qlib's own epochs."""
        model = self.model(settings)
        network, optimizer = model.lstm_model, model.train_optimizer
        course.begin(network, lambda windows: network(windows.transpose(1, 2).flatten(1)))
        inputs, target = torch.from_numpy(self.panel.inputs), torch.from_numpy(self.panel.target)
        random = np.random.default_rng(0)
        while True:
            for rows in self.stretches(random, settings["batch"]):
                wanted = target[rows[:, -STRETCH:].clamp(min=0)].masked_fill(rows[:, -STRETCH:] < 0, np.nan)
                with precision_of(settings):
                    states = network.rnn(inputs[rows.clamp(min=0)])[0][:, -STRETCH:]
                    known = torch.isfinite(wanted)
                    loss = model.loss_fn(network.fc_out(states).squeeze(-1).float(), wanted)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_value_(network.parameters(), 3.0)
                optimizer.step()
                if course.add(known.sum()):
                    return

    def stretches(self, random, size):
        """Yield rows (B, L - 1 + K) of an epoch's stretches, shuffled; -1 behind the end of a life.

        Before its first bar a life has zeros: there the first row stands for all of them.
        """
        seen = np.concatenate([[0], np.cumsum(np.isfinite(self.panel.target))])
        firsts, starts, stops = [], [], []
        for start, stop in self.panel.trimmed_lives():
            first = np.arange(start + PAD - random.integers(STRETCH), stop, STRETCH)
            first = first[seen[np.minimum(first + STRETCH, stop)] > seen[np.maximum(first, start)]]
            firsts.append(first)
            starts.append(np.full(len(first), start))
            stops.append(np.full(len(first), stop))
        first, start, stop = (np.concatenate(parts)[:, None] for parts in (firsts, starts, stops))
        order = random.permutation(len(first))
        for i in range(0, len(order), size):
            own = order[i : i + size]
            rows = np.maximum(first[own] + np.arange(1 - LOOK_BACK, STRETCH), start[own])
            yield torch.from_numpy(np.where(rows < stop[own], rows, -1))


if __name__ == "__main__":
    main({"qlib": FromTable, "qlib_ts": FromSampler, "qlib_stretches": OnStretches})
