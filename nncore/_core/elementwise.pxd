from .tensor cimport TensorBase

cpdef TensorBase contiguous(TensorBase t)
