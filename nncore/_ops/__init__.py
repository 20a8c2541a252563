"""The operations: each checks its arguments, calls the kernels, and has its forward and backward side by side.

Users meet them as methods of Tensor and in nncore.nn.functional.
"""
