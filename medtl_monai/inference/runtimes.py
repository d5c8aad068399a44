"""Trained networks run by ONNX Runtime or OpenVINO, which are faster than torch on many CPUs."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.utils import convert_to_dst_type
from numpy.typing import NDArray
from torch import Tensor, nn

from ..utils import UserError
from ..variants import domains_of

__all__ = ["RUNTIMES", "Exported"]

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Exported(nn.Module):
    """A network whose forward pass another runtime computes, on the CPU, in float32 and without gradients.

    It is exported to ONNX at the first image of each shape; batches may differ in size.

    Args:
        network: on the CPU and in evaluation mode; its weights must not change any more.
        runtime: ``onnxruntime`` or ``openvino``, with the extras of the same names.

    Raises:
        UserError: the runtime is not installed, or the network cannot be exported.
    """

    def __init__(self, network: nn.Module, runtime: str) -> None:
        super().__init__()
        if domains_of(network):
            raise UserError(f"runtime {runtime}: norm domain changes with the images: take torch.")
        try:
            self._compile = RUNTIMES[runtime]()
        except ModuleNotFoundError as error:
            raise UserError(f"runtime {runtime} needs {error.name}: pip install 'medtl_monai[{runtime}]'.") from error
        self.network, self.runtime = network, runtime
        self._runs: dict[tuple[int, ...], Run] = {}

    def forward(self, image: Tensor) -> Tensor:
        """What the network gives for ``image`` ``(B, channels, *spatial)``."""
        shape = tuple(image.shape[1:])
        if shape not in self._runs:
            self._runs[shape] = self._compile(self._onnx(torch.zeros(2, *shape)))
        return convert_to_dst_type(self._runs[shape](np.ascontiguousarray(image.cpu().numpy())), image)[0]

    def _onnx(self, image: Tensor) -> bytes:
        file, batch = io.BytesIO(), {0: "batch"}
        names: dict[str, Any] = {"input_names": ["image"], "output_names": ["pred"]}
        target: Any = file  # or an open file, which the types do not say
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the tracer's, of shapes that are constant here
                torch.onnx.export(
                    self.network, (image,), target, dynamo=False, **names, dynamic_axes={"image": batch, "pred": batch}
                )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"runtime {self.runtime}: this network has no ONNX form ({reason}): take torch.") from error
        return file.getvalue()


def _onnxruntime() -> Callable[[bytes], Run]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()

    def compiled(model: bytes) -> Run:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return lambda image: session.run(None, {"image": image})[0]

    return compiled


def _openvino() -> Callable[[bytes], Run]:
    import openvino

    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"})

    def compiled(model: bytes) -> Run:
        network = core.compile_model(core.read_model(model), "CPU")
        return lambda image: network(image)[0].copy()

    return compiled


RUNTIMES: dict[str, Callable[[], Callable[[bytes], Run]]] = {"onnxruntime": _onnxruntime, "openvino": _openvino}
"""Besides torch: from nothing to a function that compiles an ONNX model; imports the runtime."""
