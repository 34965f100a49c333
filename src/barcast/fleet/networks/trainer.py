"""Trains the dedicated networks of many symbols at once, each as if it were alone.

Every seat of the batch holds one symbol, which has its own steps, rates, stopping and best weights; a symbol
that is finished, or cannot be trained, gives its seat to the next. Once nobody waits, empty seats go away.

A state can be taken between any two steps (:meth:`BatchTrainer.state_bytes`); a batch that goes on from it
ends with the same weights, bit for bit on the same type of machine and versions.

Letters: G seats, T steps, B sequences, K predictions, H horizons, P weights.
"""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from barcast.core.arrays import I64
from barcast.core.errors import DataError
from barcast.fleet.data import FleetData
from barcast.fleet.networks.lessons import Lessons, lessons_of, symbol_seed
from barcast.fleet.networks.optimise import Moments, adamw, decayed
from barcast.fleet.networks.packing import Packed, pack
from barcast.fleet.networks.presets import NetworkPreset
from barcast.fleet.networks.seats import Pool, Seat, Standing, squared_errors
from barcast.fleet.networks.stacked import Masks, Shape, draw_masks, forward
from barcast.fleet.networks.state import pack_state, unpack_state
from barcast.fleet.work import SymbolResult

#: Memory that one step's states may take: more seats than fill it are no faster.
STEP_BYTES = 64 << 20
MOST_SEATS = 128


@dataclass(frozen=True)
class Member:
    """A symbol that waits for a seat: its position in the data and its own options."""

    position: int
    preset: NetworkPreset


class BatchTrainer:
    """A batch of symbols whose networks have one shape.

    Parameters
    ----------
    data : FleetData
    members : sequence of Member
        Seated in this order; all presets have the same ``shape``.
    name : str
        Of the preset, for the results.
    seed : int
        Of the fleet; each symbol's own follows from it and the symbol's name.
    num_seats : int
        G; 0 chooses by what a step takes.

    Attributes
    ----------
    results : dict of int to SymbolResult
        By position among the members, as they finish.
    labels_seen : int
        Labels that this process has learned from.
    """

    def __init__(
        self, data: FleetData, members: Sequence[Member], name: str, seed: int, num_seats: int = 0
    ) -> None:
        self.data, self.members, self.name, self.seed = data, tuple(members), name, seed
        self.preset = members[0].preset
        assert len({member.preset.shape for member in members}) == 1, "one shape a batch"
        self.shape = Shape.of(self.preset, data.inputs.shape[1], data.target.shape[1])
        self.results: dict[int, SymbolResult] = {}
        self.next_member = 0
        self.seats: list[Seat] = []
        num = min(num_seats or seats_for(self.preset), len(members))
        self.pool = self._make_pool(num)
        self.weights, self.best = (torch.zeros(num, self.shape.size) for _ in range(2))
        self.moments = Moments(*(torch.zeros(num, self.shape.size) for _ in range(2)))
        self.decay_of = decayed(self.shape)
        self.labels_seen = 0

    @property
    def finished(self) -> bool:
        """Whether every symbol has its result."""
        return len(self.results) == len(self.members)

    def run(self, seconds: float = math.inf) -> bool:
        """Train for about so long; return whether the batch is finished."""
        until = time.monotonic() + seconds
        self._fill()
        while not self.finished and time.monotonic() < until:
            self._step()
        return self.finished

    def in_order(self) -> list[SymbolResult]:
        """Return the results of a finished batch, in the members' order."""
        return [self.results[member] for member in range(len(self.members))]

    def _make_pool(self, num_seats: int) -> Pool:
        lengths = np.diff(self.data.offsets)
        longest = max(int(lengths[member.position]) for member in self.members)
        return Pool(num_seats, longest, self.shape.num_inputs, self.shape.num_horizons)

    # --- seats -----------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Seat who waits on seats that nobody had yet."""
        while len(self.seats) < len(self.weights):
            found = self._next_seat()
            if found is None:
                self._keep(np.arange(len(self.seats)))
                return
            self.seats.append(found)
            self._begin(len(self.seats) - 1)

    def _next_seat(self) -> Seat | None:
        """Prepare the next symbol that can be trained; those before it that cannot have their results."""
        while self.next_member < len(self.members):
            member = self.next_member
            self.next_member += 1
            try:
                return Seat(self._lessons(member), Standing(member))
            except DataError as error:
                self._fail(Standing(member), error.found, error.todo)
        return None

    def _lessons(self, member: int) -> Lessons:
        who = self.members[member]
        return lessons_of(self.data.one(who.position), who.preset, self.seed)

    def _begin(self, seat: int) -> None:
        lessons = self.seats[seat].lessons
        self.pool.put(seat, lessons)
        self.weights[seat] = self.shape.initial(lessons.seed)
        for each in (self.best, self.moments.first, self.moments.second):
            each[seat] = 0.0

    def _give_on(self, seats: list[int]) -> None:
        """Give seats to whoever waits; those that nobody wants go away."""
        empty = set()
        for seat in seats:
            found = self._next_seat()
            if found is None:
                empty.add(seat)
            else:
                self.seats[seat] = found
                self._begin(seat)
        if empty:
            self._keep(np.array([seat for seat in range(len(self.seats)) if seat not in empty], np.int64))

    def _keep(self, seats: I64) -> None:
        chosen = torch.from_numpy(seats)
        self.seats = [self.seats[seat] for seat in seats]
        self.pool.keep(seats)
        self.weights, self.best = self.weights[chosen], self.best[chosen]
        self.moments = Moments(self.moments.first[chosen], self.moments.second[chosen])

    # --- one step --------------------------------------------------------------------------------------

    def _step(self) -> None:
        """Let every seat learn from its next stretches, and judge those whose epoch ends."""
        started = time.perf_counter()
        stretches = [seat.next_stretches() for seat in self.seats]
        inputs, targets = self.pool.gather(
            np.arange(len(self.seats)), stretches, self.preset.look_back_window, self.preset.stretch_length,
            self.preset.num_stretches, judged=False,
        )  # fmt: skip
        losses = self._learn(inputs, targets, [len(own) for own in stretches])
        ended = [i for i, seat in enumerate(self.seats) if seat.count_step(losses[i])]
        diverged = [i for i, loss in enumerate(losses) if not math.isfinite(loss)]
        judged = [i for i in ended if i not in diverged]
        if judged:
            self._judge(judged)
        self._share_out(time.perf_counter() - started)
        for i in diverged:
            found = f"the loss became {losses[i]} at step {self.seats[i].standing.step}"
            self._fail(self.seats[i].standing, found, "a lower `lr`, or look for extreme inputs")
        done = [i for i in judged if self.seats[i].finished]
        for i in done:
            self._finish(i)
        self._give_on(sorted({*diverged, *done}))

    def _share_out(self, seconds: float) -> None:
        for seat in self.seats:
            seat.standing.seconds += seconds / len(self.seats)

    def _learn(self, inputs: Tensor, targets: Tensor, counts: list[int]) -> list[float]:
        """Move every seat's weights by one step; return its loss."""
        leaves = {
            name: view.detach().requires_grad_() for name, view in self.shape.views(self.weights).items()
        }
        masks = self._masks(inputs.shape[1])
        outputs = forward(self.shape, leaves, inputs, self.preset.stretch_length, masks, counts)
        errors, known = squared_errors(outputs, targets)
        num_labels = known.sum(dim=(1, 2, 3))
        losses = errors.sum(dim=(1, 2, 3)) / num_labels
        found = torch.autograd.grad(losses.sum(), list(leaves.values()))
        gradients = torch.cat([each.flatten(1) for each in found], dim=1)
        presets = [seat.lessons.preset for seat in self.seats]
        adamw(
            self.weights, gradients, self.moments, self.decay_of,
            rates=np.array([seat.rate for seat in self.seats]),
            decays=np.array([preset.weight_decay for preset in presets]),
            steps=np.array([seat.standing.step + 1.0 for seat in self.seats]),
            clips=np.array([preset.clip for preset in presets]),
        )  # fmt: skip
        self.labels_seen += int(known.any(dim=-1).sum())
        return losses.tolist()

    def _masks(self, steps: int) -> Masks | None:
        preset = self.preset
        if not preset.dropout:
            return None
        seeds = [symbol_seed(seat.lessons.seed, str(seat.standing.step)) for seat in self.seats]
        return draw_masks(
            self.shape, seeds, preset.dropout, steps, preset.stretch_length, preset.num_stretches
        )

    # --- judging ---------------------------------------------------------------------------------------

    def _judge(self, chosen: list[int]) -> None:
        """Score seats on their own `stop` and keep the weights of those that are better than ever.

        Where the number of epochs is fixed nothing is scored, and the last weights are kept.
        """
        scored = [i for i in chosen if not self.seats[i].lessons.preset.fixed_epochs]
        scores: dict[int, float | None] = dict.fromkeys(chosen)
        if scored:
            scores |= zip(scored, self._scores(scored), strict=True)
        for i, score in scores.items():
            if self.seats[i].end_epoch(score):
                self.best[i] = self.weights[i]

    @torch.no_grad()
    def _scores(self, chosen: list[int]) -> list[float]:
        """Return R2 against zero on the fixed grid of `stop`."""
        seats, grids = np.array(chosen), [self.seats[i].lessons.grid for i in chosen]
        longest = max(map(len, grids))
        count = min(self.preset.num_stretches, longest)
        views = self.shape.views(self.weights[torch.from_numpy(seats)])
        wrong = total = torch.zeros(len(chosen), dtype=torch.float64)
        for first in range(0, longest, count):
            parts = [grid.take(np.arange(first, max(min(first + count, len(grid)), first))) for grid in grids]
            inputs, targets = self.pool.gather(
                seats, parts, self.preset.look_back_window, self.preset.stretch_length, count, judged=True
            )
            outputs = forward(self.shape, views, inputs, self.preset.stretch_length)
            wrong = wrong + squared_errors(outputs, targets)[0].sum(dim=(1, 2, 3), dtype=torch.float64)
            total = total + targets.nan_to_num().square().sum(dim=(1, 2, 3), dtype=torch.float64)
        return (1 - wrong / total).tolist()

    # --- results ---------------------------------------------------------------------------------------

    def _finish(self, seat: int) -> None:
        own = self.seats[seat]
        if not own.standing.best_epoch:
            self._fail(own.standing, "no epoch had a score on `stop`", "a lower `lr`")
            return
        if not torch.isfinite(self.best[seat]).all():  # where nothing is judged the last step may do it
            self._fail(own.standing, "its weights are no numbers", "a lower `lr`")
            return
        packed = Packed(
            self.shape, self.preset.look_back_window, own.lessons.scaler, self.best[seat].numpy().copy()
        )
        self.results[own.standing.position] = SymbolResult(
            self._symbol(own.standing), self.name, "done", seconds=own.standing.seconds,
            num_rows=own.lessons.num_rows, metrics=_metrics(own), model=pack(packed),
        )  # fmt: skip

    def _fail(self, standing: Standing, found: str, todo: str) -> None:
        self.results[standing.position] = SymbolResult(
            self._symbol(standing), self.name, "failed", seconds=standing.seconds, reason=found, todo=todo,
            metrics={"curve": standing.curve},
        )  # fmt: skip

    def _symbol(self, standing: Standing) -> str:
        return self.data.symbols[self.members[standing.position].position]

    # --- survival --------------------------------------------------------------------------------------

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a saved state must agree with: symbols, options, seed and the rows themselves."""
        rows = 0
        for member in self.members:
            own = self.data.one(member.position)
            for values in (own.inputs, own.target, own.segment, own.life_start):
                rows = zlib.crc32(np.ascontiguousarray(values).tobytes(), rows)
        members = [[self.data.symbols[each.position], asdict(each.preset)] for each in self.members]
        found: dict[str, Any] = json.loads(
            json.dumps({"members": members, "name": self.name, "seed": self.seed, "rows": rows})
        )
        return found

    def state_bytes(self) -> bytes:
        """Return everything that the batch needs to go on, as safetensors with a JSON header."""
        return pack_state(
            self.identity, self._stacks(), [seat.standing for seat in self.seats], self.results,
            self.next_member,
        )  # fmt: skip

    @classmethod
    def from_state(
        cls, state: bytes, data: FleetData, members: Sequence[Member], name: str, seed: int
    ) -> BatchTrainer:
        """Make a trainer that goes on where :meth:`state_bytes` was taken.

        Raises
        ------
        RunError
            When the state is damaged, or of other symbols, options or rows.
        """
        trainer = cls(data, members, name, seed)
        saved = unpack_state(state, trainer.identity)
        trainer.results, trainer.next_member = saved.results, saved.next_member
        trainer.seats = [Seat(trainer._lessons(each.position), each) for each in saved.standings]
        trainer.weights, trainer.best = saved.stacks["weights"], saved.stacks["best"]
        trainer.moments = Moments(saved.stacks["first"], saved.stacks["second"])
        trainer.pool = trainer._make_pool(len(trainer.weights))
        for seat, own in enumerate(trainer.seats):
            trainer.pool.put(seat, own.lessons)
        return trainer

    def _stacks(self) -> dict[str, Tensor]:
        return {
            "weights": self.weights, "best": self.best, "first": self.moments.first,
            "second": self.moments.second,
        }  # fmt: skip


def seats_for(preset: NetworkPreset) -> int:
    """Return how many symbols train at once: as many as fill the memory of a step."""
    steps = preset.look_back_window - 1 + preset.stretch_length
    numbers = preset.num_layers * 8 * preset.hidden_size  # gates and states that the backward pass reads
    return min(max(STEP_BYTES // (4 * steps * preset.num_stretches * numbers), 1), MOST_SEATS)


def _metrics(own: Seat) -> dict[str, Any]:
    standing = own.standing
    return {
        "stop_score": standing.best_score, "best_epoch": standing.best_epoch, "epochs": standing.epoch,
        "steps": standing.step, "hidden_size": own.lessons.preset.hidden_size,
        "num_layers": own.lessons.preset.num_layers, "curve": standing.curve,
    }  # fmt: skip
