"""ONNX files as models and models as ONNX files.

    model = fastconv.onnx.load("net.onnx")      # a Module: predict, train, fine-tune, save
    fastconv.onnx.save(model, "net.onnx", (1, 3, 224, 224))

The ``onnx`` package parses, checks and infers shapes (``pip install 'fastconv[onnx]'``).
"""

from fastconv.onnx.model import OnnxModel, load
from fastconv.onnx.writing import save

__all__ = ["OnnxModel", "load", "save"]
