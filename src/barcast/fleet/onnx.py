"""Graphs of ONNX operators, put together one by one: files that run where there is no barcast.

Operator set 17 and ``ai.onnx.ml`` 3, which runtimes know since 2022. A graph has one input, ``inputs``, and
names what it gives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from barcast.core.atomic import atomic_path
from barcast.core.errors import UsageError

#: What every graph reads: rows or windows, float32.
INPUTS = "inputs"
TREES_DOMAIN = "ai.onnx.ml"
_OPERATOR_SETS = {"": 17, TREES_DOMAIN: 3}
#: Version of the file format that came with operator set 17.
_IR_VERSION = 8


class Graph:
    """Operators in the order in which they run.

    Raises
    ------
    UsageError
        When the package onnx is not installed.
    """

    def __init__(self) -> None:
        self._onnx = _library()
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def add(self, operator: str, *inputs: str, output: str = "", domain: str = "", **attributes: Any) -> str:
        """Append an operator and return the name of its first output."""
        name = output or f"{operator}_{len(self._nodes)}"
        self._nodes.append(
            self._onnx.helper.make_node(operator, list(inputs), [name], domain=domain, **attributes)
        )
        return name

    def constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """Keep an array in the graph and return its name."""
        name = f"constant_{len(self._constants)}"
        self._constants.append(self._onnx.numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def cast(self, value: str, dtype: npt.DTypeLike, output: str = "") -> str:
        """Append a change of type and return its name."""
        to = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.add("Cast", value, output=output, to=to)

    def write(
        self, path: Path, shape: Sequence[str | int], outputs: Mapping[str, Sequence[str | int]],
        facts: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """Check the graph and write it.

        Parameters
        ----------
        path : Path
        shape : sequence of str or int
            Of ``inputs``; words are axes of any length.
        outputs : mapping of str to sequences
            Shapes by name, float32.
        facts : mapping
            For ``metadata_props``: texts as they are, other plain values as JSON.
        """
        helper, float32 = self._onnx.helper, self._onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            self._nodes, "barcast", [helper.make_tensor_value_info(INPUTS, float32, list(shape))],
            [helper.make_tensor_value_info(name, float32, list(of)) for name, of in outputs.items()],
            self._constants,
        )  # fmt: skip
        sets = [helper.make_opsetid(domain, version) for domain, version in _OPERATOR_SETS.items()]
        model = helper.make_model(graph, opset_imports=sets, ir_version=_IR_VERSION, producer_name="barcast")
        told = {
            name: fact if isinstance(fact, str) else json.dumps(fact, ensure_ascii=False)
            for name, fact in facts.items()
        }
        helper.set_model_props(model, told)
        self._onnx.checker.check_model(model)
        with atomic_path(path) as temporary:
            temporary.write_bytes(model.SerializeToString())


def _library() -> Any:
    try:
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        found = "a file for ONNX needs the package onnx, which is not installed"
        raise UsageError(found, "pip install 'barcast[onnx]'") from error
    return onnx
