"""Other settings, tried for a few real steps each on the spot: what they would gain is measured, not guessed.

Every setting takes a turn in each round, so that a machine that slows down slows all of them; a gain is the
ratio to the present setting within one round. Steps are the training's own, on a copy of its network.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from barcast.core.errors import ResourceError
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.core.texts import Text
from barcast.training.batches import epoch_batches
from barcast.training.config import TrainConfig
from barcast.training.memory import is_out_of_memory
from barcast.training.networks import TrainingData
from barcast.training.precision import has_bf16, training_dtype
from barcast.training.step import Loss, Stepper, Which

#: Rounds, and steps of a setting in each; longer steps than this are tried less often.
ROUNDS, STEPS, LONG_STEP = 4, 3, 0.5
#: Seconds after which no further round begins.
BUDGET = 40.0
#: How a setting is named that is the present one.
NOW, HALF = "now", "half the batch"

#: Nothing is recorded of steps that only measure: a folder without run.json.
NO_RUN = RunFolder(Path("nowhere"))

ROUNDING = Text("nothing but rounding and dropout's draws", "除舍入误差与 dropout 的随机数外没有变化")
FEWER = Text(
    "the optimisation: half as many updates an epoch; --lr and --epochs may want tuning",
    "优化过程：每轮更新次数减半，--lr 与 --epochs 可能需要重新调整",
)
MORE = Text(
    "the optimisation: twice as many updates an epoch, each from half the labels",
    "优化过程：每轮更新次数加倍，每次只用一半的标签",
)
LONGER = Text(
    "a little: more forecasts of a stretch have read more of the past than their window",
    "略有变化：一段中会有更多预测读到比自身窗口更久的历史",
)
PRECISION = Text("rounding only", "只影响舍入误差")


@dataclass(frozen=True)
class Setting:
    """Options to try.

    Attributes
    ----------
    name : str
        What it is called.
    option : str
        What to type, or the line of ``[train]`` where there is no flag.
    config : TrainConfig
    threads : int
        Threads of a step; 0 on a device.
    meaning : Text
        What it changes beside speed.
    same_result : bool
        Whether the result differs by rounding and dropout's draws only.
    """

    name: str
    option: str
    config: TrainConfig
    threads: int
    meaning: Text
    same_result: bool


@dataclass(frozen=True)
class Trial:
    """How fast a setting was.

    Attributes
    ----------
    setting : Setting
    labels_per_second : float
        Median of the rounds' fastest steps.
    step_seconds : float
        Fastest step.
    gains : tuple of float
        Labels a second over those of the present setting, one a round.
    num_steps : int
        Measured steps.
    """

    setting: Setting
    labels_per_second: float
    step_seconds: float
    gains: tuple[float, ...]
    num_steps: int

    @property
    def gain(self) -> float:
        """Median gain."""
        return statistics.median(self.gains)

    def plain(self) -> dict[str, Any]:
        """Return plain values, as profile.json holds them."""
        setting = self.setting
        return {
            "name": setting.name,
            "option": setting.option,
            "labels_per_second": self.labels_per_second,
            "step_seconds": self.step_seconds,
            "gain": self.gain,
            "gain_low": min(self.gains),
            "gain_high": max(self.gains),
            "num_steps": self.num_steps,
            "same_result": setting.same_result,
            "changes": {"en": setting.meaning.en, "zh": setting.meaning.zh},
        }


def settings_to_try(config: TrainConfig, threads: int, cores: int) -> list[Setting]:
    """Return the present setting and what stands one turn of a screw beside it."""
    size, length = config.batch_size, config.stretch_length

    def change(name: str, option: str, meaning: Text, same: bool = False, **values: Any) -> Setting:
        number = values.pop("threads", threads)
        return Setting(name, option, replace(config, **values), number, meaning, same)

    found = [change(NOW, "", ROUNDING, True)]
    if size // 2 >= length:
        found.append(change(HALF, f"--batch-size {size // 2}", MORE, batch_size=size // 2))
    found.append(change("twice the batch", f"--batch-size {2 * size}", FEWER, batch_size=2 * size))
    if length > 1:
        option = f"stretch_length = {2 * length}"
        found.append(change("longer stretches", option, LONGER, stretch_length=2 * length))
    found += [
        change(f"{number} threads", f"--threads {number}", ROUNDING, True, threads=number)
        for number in sorted({1, threads // 2, 2 * threads})
        if 1 <= number <= cores and number != threads and threads
    ]
    if training_dtype(config) is not None:
        found.append(change("without amp", "--amp off", PRECISION, True, amp="off"))
    elif has_bf16(config.device):
        found.append(change("bf16", "--amp bf16", PRECISION, True, amp="bf16"))
    if config.gradient_accumulation_steps > 1:
        option = "--gradient-accumulation-steps 1"
        found.append(change("whole batches", option, ROUNDING, True, gradient_accumulation_steps=1))
    return found


@dataclass
class _Bench:
    """One setting at work."""

    setting: Setting
    stepper: Stepper
    batches: Iterator[Which]
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    num_steps: int = 0

    def run(self, steps: int, wait: Any) -> None:
        """Take some steps and keep the fastest, which others on the machine have disturbed least.

        The learning rate is next to nothing, so that the weights stay where they are.
        """
        fastest, best_rate = float("inf"), 0.0
        for _ in range(steps):
            wait()
            started = time.perf_counter()
            labels = self.stepper.step(next(self.batches), self.num_steps, 1.0)[0]
            wait()
            spent = time.perf_counter() - started
            fastest, best_rate = min(fastest, spent), max(best_rate, labels / spent)
            self.num_steps += 1
        self.rates.append(best_rate)
        self.seconds.append(fastest)


def try_settings(
    network: nn.Module, data: TrainingData, loss: Loss, settings: list[Setting], *, budget: float = BUDGET
) -> list[Trial]:
    """Measure the settings, the present one first; one that does not fit into memory is left out.

    The network is not touched. Random state is as before afterwards.
    """
    before, state = torch.get_num_threads(), torch.get_rng_state()
    benches = _warmed_up(private_copy(network), data, loss, settings)
    wait = _waiter(settings[0].config.device)
    started = time.perf_counter()
    try:
        for turn in range(ROUNDS):
            if turn > 1 and time.perf_counter() - started > budget:
                break
            for bench in benches:
                torch.set_num_threads(1 if bench.setting.threads else before)
                bench.run(STEPS if benches[0].seconds[0] < LONG_STEP else 1, wait)
    finally:
        for bench in benches:
            bench.stepper.close()
        torch.set_num_threads(before)
        torch.set_rng_state(state)
    return [_trial(bench, benches[0]) for bench in benches]


def private_copy(network: nn.Module) -> nn.Module:
    """Return a copy that steps may change, without the gradients of the last one."""
    copied = copy.deepcopy(network)
    copied.zero_grad(set_to_none=True)
    return copied


def _warmed_up(network: nn.Module, data: TrainingData, loss: Loss, settings: list[Setting]) -> list[_Bench]:
    """Prepare every setting and take its first step, which makes buffers and shows whether it fits."""
    benches: list[_Bench] = []
    for setting in settings:
        stepper = Stepper(network, data, setting.config, loss, NO_RUN, Progress(enabled=False))
        if benches:  # one for all: its state is as large as the network, twice
            stepper.optimizer = benches[0].stepper.optimizer
        stepper.compute_with(setting.threads)
        whole = epoch_batches(data, setting.config, 0)
        bench = _Bench(setting, stepper, cycle(whole[:-1] or whole))
        try:
            bench.run(1, _waiter(setting.config.device))
        except (MemoryError, RuntimeError, ResourceError) as error:
            stepper.close()
            if not benches or not is_out_of_memory(error):
                raise
            continue
        bench.rates.clear()
        benches.append(bench)
    return benches


def _waiter(device: str) -> Any:
    return (lambda: torch.cuda.synchronize(device)) if device.startswith("cuda") else (lambda: None)


def _trial(bench: _Bench, now: _Bench) -> Trial:
    return Trial(
        bench.setting,
        statistics.median(bench.rates),
        min(bench.seconds[1:]),
        tuple(rate / base for rate, base in zip(bench.rates, now.rates, strict=True)),
        bench.num_steps - 1,
    )
