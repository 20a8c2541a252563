from .tensor cimport TensorBase

cpdef TensorBase ewise(int op, TensorBase a, TensorBase b=*, TensorBase c=*, double s=*, double t=*, TensorBase out=*)
cpdef TensorBase contiguous(TensorBase t)
cpdef TensorBase channels_last(TensorBase t)
