"""What a GPU is doing: use, memory, temperature, power, for the progress line and metrics.jsonl.

Memory comes from torch; the rest from NVIDIA's management library through torch, which needs ``nvidia-ml-py``
(``pip install 'barcast[gpu]'``). What a machine cannot tell is left out, and not asked for again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: What is read, in the order it is shown.
_FORMS: dict[str, Callable[[float], str]] = {
    "gpu_percent": lambda value: f"{value:.0f} %",
    "gpu_memory_bytes": lambda value: f"{value / 2**30:.2f} GiB",
    "gpu_reserved_bytes": lambda value: f"({value / 2**30:.2f} held)",
    "gpu_celsius": lambda value: f"{value:.0f} °C",
    "gpu_watts": lambda value: f"{value:.0f} W",
}


class Telemetry:
    """Reads a device; asking costs about a millisecond, so ask when the answer is shown.

    Parameters
    ----------
    device : str
        As torch names it; of anything but ``cuda...`` there is nothing to tell.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._readings = _gpu_readings(device) if device.startswith("cuda") else {}

    def read(self) -> dict[str, float]:
        """Return what there is of percent in use, bytes of tensors, bytes held, degrees Celsius and watts."""
        found = {}
        for name, reading in list(self._readings.items()):
            try:
                found[name] = float(reading())
            except Exception:  # whatever a driver raises: no reading is worth a training
                del self._readings[name]
        return found

    def line(self) -> str:
        """Return the readings for people, with two blanks behind; empty where there are none."""
        found = [_FORMS[name](value) for name, value in self.read().items()]
        return f"gpu {' '.join(found)}  " if found else ""


def _gpu_readings(device: str) -> dict[str, Callable[[], Any]]:
    from torch import cuda

    return {
        "gpu_percent": lambda: cuda.utilization(device),
        "gpu_memory_bytes": lambda: cuda.memory_allocated(device),
        "gpu_reserved_bytes": lambda: cuda.memory_reserved(device),
        "gpu_celsius": lambda: cuda.temperature(device),
        "gpu_watts": lambda: cuda.power_draw(device) / 1000,  # milliwatts
    }
