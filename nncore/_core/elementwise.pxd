from .tensor cimport TensorBase

cpdef TensorBase contiguous(TensorBase t)
cpdef TensorBase channels_last(TensorBase t)
