"""What the rivals' workers share: the panel, the clock, the judge. Numpy, pandas and torch; no barcast.

A worker is run by a rival's own Python. It finds out which number of threads and which arithmetic make the rival
fastest, tunes batch size and learning rate, trains under a clock that stops while it is judged, and leaves one
JSON file. Each finished stage is written at once, so that a killed worker goes on with the next one.
"""

import argparse
import contextlib
import ctypes
import itertools
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

#: Rows of zeros before each life, so that every window has all its rows.
PAD = 60
#: Bars of a window; labels of a stretch.
LOOK_BACK, STRETCH = 60, 120
WINDOWS_A_CHUNK = 512


class Over(Exception):
    """The clock has run out."""


class Panel:
    """The exchange file: inputs (R, F), target (R,) with NaN where nothing teaches, borders of lives, `stop`."""

    def __init__(self, path):
        with np.load(path) as file:
            self.inputs, self.target, self.lives = file["inputs"], file["target"], file["lives"]
            self.judged, self.y, self.session = file["judged"], file["y"], file["session"]
        self.teach = np.flatnonzero(np.isfinite(self.target))
        # (R - L + 1, F, L), a view: row i ends its window at i - L + 1.
        self._windows = torch.from_numpy(self.inputs).unfold(0, LOOK_BACK, 1)

    def columns(self, rows):
        """Return windows that end at ``rows`` as (B, F, L)."""
        return self._windows[torch.as_tensor(rows) - (LOOK_BACK - 1)]

    def windows(self, rows):
        """Return windows that end at ``rows`` as (B, L, F)."""
        return self.columns(rows).transpose(1, 2).contiguous()

    def trimmed_lives(self):
        """Return (first row, row after the last that teaches) of each life with a label."""
        for start, stop in itertools.pairwise(self.lives):
            own = self.teach[np.searchsorted(self.teach, start) : np.searchsorted(self.teach, stop)]
            if len(own):
                yield int(start), int(own[-1]) + 1

    def rank_ic(self, scores):
        """Return the mean over sessions of Spearman's correlation of scores and outcomes."""
        import pandas as pd

        frame = pd.DataFrame({"session": self.session, "y": self.y, "score": scores.astype(np.float64)})
        ranks = frame.groupby("session").rank()
        ranks -= ranks.groupby(frame["session"]).transform("mean")
        product = (ranks["y"] * ranks["score"]).groupby(frame["session"]).sum()
        square = (ranks**2).groupby(frame["session"]).sum()
        return float((product / np.sqrt(square["y"] * square["score"])).mean())


class Course:
    """Clock and judge of one training; judging counts in no time. Without looks it only times steps."""

    def __init__(self, panel, seconds, looks, patience=10**9):
        self.panel, self.seconds, self.looks, self.patience = panel, seconds, looks, patience
        self.spent, self.labels, self.curve, self.scores, self.first = 0.0, 0, [], None, None

    def begin(self, network, predict):
        """Start the clock; ``predict`` maps windows (B, L, F) to scores (B,)."""
        self.network, self.predict = network, predict
        self.mark = time.perf_counter()

    def add(self, labels):
        """Count the labels of a step that is done; return whether it was the last.

        Looks come at the squares of equal steps: early ones are what tells fast sides apart.
        """
        now = time.perf_counter()
        self.spent, self.mark, self.labels = self.spent + now - self.mark, now, self.labels + int(labels)
        if not self.looks:
            self.first = self.first or (self.spent, self.labels)
            return self.spent - self.first[0] >= self.seconds
        over = self.spent >= self.seconds
        if over or self.spent >= self.seconds * ((len(self.curve) + 1) / self.looks) ** 2:
            self._look()
            values = [score for _, score in self.curve]
            over = over or len(values) - int(np.argmax(values)) > self.patience
            self.mark = time.perf_counter()
        return over

    def _look(self):
        parts = np.array_split(self.panel.judged, -(-len(self.panel.judged) // WINDOWS_A_CHUNK))

        def score(part):
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                return self.predict(self.panel.windows(part)).float().numpy().ravel()

        threads = torch.get_num_threads()
        self.network.eval()
        with ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            found = list(pool.map(score, parts))
        torch.set_num_threads(threads)  # libraries below keep one number for all threads
        self.network.train()
        self.scores = np.concatenate(found)
        self.curve.append((round(self.spent, 3), self.panel.rank_ic(self.scores)))

    @property
    def warm_rate(self):
        """Labels a second after the first step, which makes buffers and starts workers."""
        spent, labels = self.first
        return (self.labels - labels) / (self.spent - spent)


def precision_of(settings):
    """Return the context of a step in the settings' arithmetic, for loops that have no option for it."""
    if settings["precision"] == "bf16":
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def keep_freed_memory():
    """Give this process the allocator settings that barcast gives its own."""
    library = ctypes.CDLL("libc.so.6")
    for name, value in ((-3, 1 << 30), (-1, 2**31 - 1), (-8, 1)):
        library.mallopt(name, value)


def main(rivals):
    """Run one of ``rivals``: a name each, and a class of (panel) with ``probes``, ``grid`` and ``train``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rival", choices=sorted(rivals))
    parser.add_argument("panel")
    parser.add_argument("result", type=Path)
    parser.add_argument("--cap", type=float, required=True, help="seconds of the training that counts")
    parser.add_argument("--tune", type=float, required=True, help="seconds of each try")
    parser.add_argument("--probe", type=float, required=True, help="seconds of each timing")
    parser.add_argument("--looks", type=int, required=True)
    parser.add_argument("--patience", type=int, required=True)
    parser.add_argument("--tuned-by", type=Path, help="take batch and rate from this result")
    given = parser.parse_args()
    keep_freed_memory()
    panel = Panel(given.panel)
    begin = time.perf_counter()
    rival = rivals[given.rival](panel)
    notes = Notes(given.result)
    notes.set("prepare_seconds", time.perf_counter() - begin)
    run_stages(rival, panel, notes, given)


def run_stages(rival, panel, notes, given):
    """Find the fastest arithmetic, the best batch and rate, then train with them."""

    def train(settings, *clock):
        course = Course(panel, *clock)
        torch.manual_seed(0)
        torch.set_num_threads(settings["threads"])
        rival.train(settings, course)
        return course

    def rate(probe):
        return train({**rival.grid[0], **probe}, given.probe, 0).warm_rate

    def score(point):
        return train({**fastest, **point}, given.tune, 1).curve[-1][1]

    fastest = notes.best_of("probe", rival.probes, rate)
    if given.tuned_by:
        settings = {**fastest, **json.loads(given.tuned_by.read_text())["tuned"]}
    else:
        tuned = notes.best_of("tune", rival.grid, score)
        notes.set("tuned", tuned)
        settings = {**fastest, **tuned}
    course = train(settings, given.cap, given.looks, given.patience)
    np.save(given.result.with_suffix(".npy"), course.scores)
    notes.set("settings", settings)
    notes.set("version", rival.version)
    notes.set("curve", course.curve)
    notes.set("labels_per_second", course.labels / course.spent)
    notes.set("done", True)


class Notes:
    """What is found so far, in a file that is written at every change."""

    def __init__(self, path):
        self.path, self.values = path, json.loads(path.read_text()) if path.exists() else {}

    def set(self, name, value):
        """Write down a value."""
        self.values[name] = value
        self.path.with_suffix(".part").write_text(json.dumps(self.values))
        self.path.with_suffix(".part").rename(self.path)

    def best_of(self, stage, points, measure):
        """Measure every point that has no value yet; return the one with the highest."""
        found = self.values.get(stage, [])
        for point in points[len(found) :]:
            found = [*found, measure(point)]
            self.set(stage, found)
            print(f"{stage} {point}: {found[-1]:.4f}", flush=True)
        return points[int(np.nanargmax(found))]


def grid_of(**choices):
    """Return every combination of the choices as settings."""
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]
