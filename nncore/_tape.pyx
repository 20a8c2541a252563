"""Autograd: the graph of what ran, and its traversal.

An operation computes its result with the kernels, then calls `record(result, name, inputs, backward, saved)`. If
gradients are on and an input wants one, the result gets a Node: the node's `backward` maps the gradient of the result to
those of the inputs (None where there is none). `saved` names the tensors that backward reads, so that a write to one
of them in between is an error, not a wrong gradient.

Nodes are numbered as they are made. Every consumer of a result has a higher number than the node that made it, so
running the highest pending number first runs each node once, after all its gradients have arrived.
"""
from heapq import heappop, heappush

from nncore._core.elementwise import copy_into as _copy_into
from nncore._core.record import RecordError

from cpython.object cimport PyObject

from nncore._core.record cimport Recorder, recorder
from nncore._core.c cimport NN_FLOAT64, NN_OP_add, NN_OP_fill
from nncore._core.elementwise cimport ewise
from nncore._core.tensor cimport Storage, TensorBase, empty_like, note_grad, overlaps

cdef extern from *:
    """
    static _Thread_local int grad_enabled = 1; /* of this Python thread */
    """
    int grad_enabled

cdef long _counter = 0


def is_grad_enabled():
    """Whether operations are recorded."""
    return bool(grad_enabled)


def set_enabled(bint value):
    """Sets whether operations are recorded; gives the former value."""
    global grad_enabled
    was = bool(grad_enabled)
    grad_enabled = value
    return was


cdef class Node:
    """One recorded operation. `name` is the operation's; `next_functions` leads towards the leaves."""
    cdef readonly str name
    cdef readonly long number
    cdef tuple inputs      # of each input: the Node that made it, the leaf Tensor itself, or None (no gradient)
    cdef tuple slots       # which output of that Node
    cdef object backward   # None once it has run
    cdef tuple saved
    cdef list versions
    cdef list pending      # gradients of the outputs that have arrived
    cdef int n_outputs
    cdef dict hooks        # {output: {key: function}} that its gradient goes through, or None
    cdef object __weakref__

    @property
    def next_functions(self):
        """For each input, the Node that made it or the leaf Tensor that collects its gradient; None for an input
        without gradient."""
        return self.inputs

    def __repr__(self):
        return f"<{self.name} #{self.number}>"


cdef Node _node(str name, tuple inputs, backward, tuple saved, int n_outputs):
    global _counter
    cdef Node node = Node.__new__(Node)
    cdef TensorBase t
    cdef list edges = [], slots = []
    _counter += 1
    node.name = name
    node.number = _counter
    for x in inputs:
        t = x
        if t is None or not t.wants_grad:
            edges.append(None)
            slots.append(0)
        elif t.grad_fn is None:
            edges.append(t)
            slots.append(0)
        else:
            edges.append(t.grad_fn)
            slots.append(t.output_nr)
    node.inputs = tuple(edges)
    node.slots = tuple(slots)
    node.backward = backward
    node.saved = saved
    node.n_outputs = n_outputs
    if saved:
        node.versions = [((<TensorBase>s).storage, (<TensorBase>s).storage.version) for s in saved]
    return node


cdef inline bint _wanted(tuple inputs):
    cdef TensorBase t
    for x in inputs:
        t = x
        if t is not None and t.wants_grad:
            return True
    return False


def record(out, str name, tuple inputs, backward, tuple saved=()):
    """Gives `out` its place in the graph, and returns it.

    out: the result, or a tuple of results; results that are not floating never get a gradient.
    inputs: the operation's tensor inputs (None for one that was not given).
    backward: from the gradient of each result (None for one that nobody used, if there are several) to a tuple of
        gradients, one per input.
    saved: the tensors that backward reads.
    """
    cdef TensorBase t
    cdef Node node
    if not grad_enabled or not _wanted(inputs):
        return out
    if type(out) is tuple:
        node = _node(name, inputs, backward, saved, len(out))
        result = []
        for i, o in enumerate(out):
            t = o
            t.storage.shielded = True
            if t.code <= NN_FLOAT64:
                for s in saved:
                    if s is t:
                        t = t.alias()
                        break
                t.wants_grad = True
                t.grad_fn = node
                t.output_nr = i
            result.append(t)
        return tuple(result)
    node = _node(name, inputs, backward, saved, 1)
    t = out
    t.storage.shielded = True
    for s in saved:
        if s is out:  # backward holds the result: a second name outside the graph, or they would hold each other
            t = t.alias()
            break
    t.wants_grad = True
    t.grad_fn = node
    return t


cdef class _Derivative:
    """dx = op(dy, saved; s, t)."""
    cdef int op
    cdef TensorBase saved
    cdef double s, t

    def __call__(self, TensorBase dy):
        return (ewise(self.op, dy, self.saved, None, self.s, self.t),)


def unary(str name, int op, int back, TensorBase x, bint of_result, double s=0, double t=0):
    """y = op(x; s, t), recorded; its gradient is back(dy, y; s, t) if `of_result`, else back(dy, x; s, t)."""
    cdef TensorBase y = ewise(op, x, None, None, s, t)
    cdef _Derivative derivative
    if not grad_enabled or not x.wants_grad:
        return y
    derivative = _Derivative.__new__(_Derivative)
    derivative.op, derivative.saved, derivative.s, derivative.t = back, y if of_result else x, s, t
    return record(y, name, (x,), derivative, (derivative.saved,))


cdef int _accumulate(TensorBase leaf, TensorBase g) except -1:
    """leaf.grad += g. The first gradient is kept as it is if nobody else can see it, else copied."""
    cdef TensorBase own
    cdef Recorder r = recorder()
    if r is not None and not r.pause:
        if leaf._grad_dropped == 2:
            raise RecordError(
                "backward: eager code would add to the gradients of the last update here, but a compiled function drops them "
                "after it; call optimizer.zero_grad() inside the function, before backward()")
        note_grad(leaf)
        r.updated.discard(leaf)
    if leaf._grad_dropped == 1:
        leaf._grad_dropped = 0
    if g.ndim != leaf.ndim:
        raise RuntimeError(f"backward gave a gradient of shape {g.shape} for a tensor of shape {leaf.shape}")
    for i in range(g.ndim):
        if g.dims[i] != leaf.dims[i]:
            raise RuntimeError(f"backward gave a gradient of shape {g.shape} for a tensor of shape {leaf.shape}")
    if leaf.grad_ is not None and overlaps(leaf.grad_):  # somebody's expanded tensor: not to be added to in place
        leaf.grad_ = ewise(NN_OP_add, leaf.grad_, g)
    elif leaf.grad_ is not None:
        ewise(NN_OP_add, leaf.grad_, g, None, 0, 0, leaf.grad_)
    elif (<PyObject *>g).ob_refcnt <= 2 and (<PyObject *>g.storage).ob_refcnt == 1 and g.contiguous():
        # held by `grads` and `g` alone
        leaf.grad_ = g
    else:
        own = empty_like(leaf)
        _copy_into(own, g)
        own.storage.version = 0
        leaf.grad_ = own
    return 0


def hooks_of(TensorBase t):
    """The functions, by key, that the gradient of t goes through: a dict to be changed."""
    cdef Node node = t.grad_fn
    if node is None:
        if t.hooks is None:
            t.hooks = {}
        return t.hooks
    if node.hooks is None:
        node.hooks = {}
    return node.hooks.setdefault(t.output_nr, {})


def leaf_hooks(TensorBase t):
    """The functions that the gradient of a leaf goes through."""
    return tuple(t.hooks.values()) if t.hooks else ()


cdef object _through(dict hooks, g):
    """A gradient after its hooks."""
    for hook in list(hooks.values()):
        result = hook(g)
        if result is None:
            continue
        if not isinstance(result, TensorBase):
            raise TypeError(f"hook: expected a Tensor or None, got {type(result).__name__}")
        if result.shape != g.shape or result.dtype != g.dtype:
            raise ValueError(f"hook: expected a gradient of {g.dtype} and shape {g.shape}, got {result.dtype} of {result.shape}")
        g = result
    return g


def _check_saved(Node node):
    cdef TensorBase t
    for i in range(len(node.saved)):
        t = node.saved[i]
        storage, version = node.versions[i]
        if t.storage is not storage:
            raise RuntimeError(f"{node.name}: a tensor of shape {t.shape} that backward needs was converted in place after "
                               "it was used; convert the model before the forward pass")
        if t.storage.version != version:
            raise RuntimeError(
                f"{node.name}: a tensor of shape {t.shape} that backward needs was changed in place after it was used "
                f"(version {version} when used, {t.storage.version} now); work on a copy of it")


def backward(TensorBase root, TensorBase gradient, bint retain_graph):
    """Adds the gradient of <gradient, root> to .grad of every leaf that root depends on."""
    cdef Node node, source
    cdef TensorBase leaf
    cdef list heap = []
    cdef dict waiting = {}  # address -> (leaf with hooks, its whole gradient)
    cdef int slot
    was = set_enabled(False)
    started = []
    try:
        if root.grad_fn is None:
            _accumulate(root, _through(root.hooks, gradient) if root.hooks else gradient)
            return
        node = root.grad_fn
        node.pending = [None] * node.n_outputs
        node.pending[root.output_nr] = gradient
        heappush(heap, (-node.number, node))
        started.append(node)
        while heap:
            node = heappop(heap)[1]
            if node.backward is None:
                raise RuntimeError(
                    f"{node.name}: the graph was freed by an earlier backward(); "
                    "pass retain_graph=True to the first call to go through it twice")
            if node.saved:
                _check_saved(node)
            pending = node.pending
            node.pending = None
            if node.hooks is not None:
                for nr, hooks in node.hooks.items():
                    if pending[nr] is not None:
                        pending[nr] = _through(hooks, pending[nr])
            grads = node.backward(*pending)
            pending = None
            for i in range(len(node.inputs)):
                edge = node.inputs[i]
                g = grads[i]
                if edge is None or g is None:
                    continue
                if type(edge) is Node:
                    source = edge
                    slot = node.slots[i]
                    if source.pending is None:
                        source.pending = [None] * source.n_outputs
                        heappush(heap, (-source.number, source))
                        started.append(source)
                    held = source.pending[slot]
                    source.pending[slot] = g if held is None else ewise(NN_OP_add, held, g)
                else:
                    leaf = edge
                    if leaf.hooks:
                        held = waiting.get(id(leaf))
                        waiting[id(leaf)] = leaf, g if held is None else ewise(NN_OP_add, held[1], g)
                    else:
                        _accumulate(leaf, g)
            grads = g = None
            if not retain_graph:
                node.backward = None
                node.saved = ()
        for edge, g in waiting.values():
            leaf = edge
            _accumulate(leaf, _through(leaf.hooks, g))
    except BaseException:
        for n in started:
            (<Node>n).pending = None
        raise
    finally:
        set_enabled(was)
