"""What each operator of ONNX writes down: one function an operator, with the step and its operands.

Operands are values, parameters and known arrays; shapes are known whenever a forward is written down.
"""

from fastconv.onnx.operators import elementwise, pooling, products, resizing, shape
from fastconv.onnx.operators._registry import NUMBERS, OPERATORS, sides

__all__ = ["NUMBERS", "OPERATORS", "elementwise", "pooling", "products", "resizing", "shape", "sides"]
