"""What a recording keeps. `recorder()` is this thread's, or None; the runtime tells it of kernels that run, the tensors of
memory that comes and goes. It knows no kernel: arguments are bytes."""
import gc
import os
import sys
from weakref import ref

from cpython.ref cimport PyObject, Py_INCREF, Py_DECREF

cdef extern from *:
    """
    static _Thread_local PyObject *this_threads_recorder = NULL;
    """
    PyObject *this_threads_recorder

cdef str _PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
cdef str _TESTS = os.path.join(_PACKAGE, "tests") + os.sep  # of a wheel: to the package, a user's code


cdef Recorder recorder():
    return <Recorder>this_threads_recorder if this_threads_recorder != NULL else None


def current():
    """This thread's recorder, or None; None while it pauses."""
    cdef Recorder r = recorder()
    return None if r is None or r.pause else r


def active():
    """Whether this thread is recording, or pauses."""
    return this_threads_recorder != NULL


cdef long _serials = 0


cdef long next_serial() noexcept:
    """Of a new Storage."""
    global _serials
    _serials += 1
    return _serials


cdef long _epoch = 0


cpdef long epoch() noexcept:
    """How often something changed that plans may depend on: attributes of modules, requires_grad, dtypes, the kernels."""
    return _epoch


def changed():
    """Counts such a change."""
    global _epoch
    _epoch += 1


def where():
    """(file, line) of the innermost frame outside of the package."""
    frame = sys._getframe()
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_PACKAGE) or file.startswith(_TESTS):
            break
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("?", 0)


def note_index(str name):
    """The next kernel checks indices of this name."""
    cdef Recorder r = current()
    if r is not None:
        r.indices[len(r.calls)] = name


class Taken(int):
    """The number of a stream that was taken while recording: of which generator, and which of all it was."""

    def __new__(cls, stream, generator, which):
        self = int.__new__(cls, stream)
        self.generator, self.which = generator, which
        return self


def taken(generator, stream):
    """The stream as what `note_stream` knows, and a replay takes anew; itself if nobody records."""
    cdef Recorder r = current()
    if r is None:
        return stream
    r.streams.append(Taken(stream, generator, len(r.streams)))
    return r.streams[len(r.streams) - 1]


def note_stream(stream):
    """The next kernel draws from this stream."""
    cdef Recorder r = current()
    if r is not None and type(stream) is Taken:
        r.drawn[len(r.calls)] = stream


def before_next(prepare, list updated):
    """The next kernel, which updates these tensors, is prepared anew before each replay."""
    cdef Recorder r = current()
    if r is not None:
        r.prepare.append((len(r.calls), prepare))
        r.updated.update(updated)


# instead of a gradient from before, where zero_grad(set_to_none=False) looked
CLEAN = "nothing"
DROPPED = "nothing, as a compiled update dropped it"


class RecordError(RuntimeError):
    """Something in a compiled function that cannot be recorded; the message names the line and what to do."""

    def __init__(self, message, at=None):
        file, line = at or where()
        super().__init__(f"{message} ({file}, line {line})")


cdef class Call:
    """One kernel that ran."""


cdef class Block:
    """Memory of a tensor made while recording."""


cdef class Leaf:
    """What a recording found in the .grad of a tensor."""


cdef class Recorder:
    """Records this thread between `start` and `stop`."""

    def __init__(self, fixed, raw):
        self.calls, self.blocks, self.ranges = [], [], []
        self.leaves, self.modules, self.updated, self.raw = {}, {}, set(), raw
        self.live, self.written, self.optimizers, self.packs, self.found = {}, {}, set(), {}, {}
        self.indices, self.drawn = {}, {}
        self.prepare, self.streams, self.constants = [], [], []
        self.fixed, self.packing, self.first, self.aside = fixed, None, _serials, set()

    def start(self):
        """From now on."""
        global this_threads_recorder
        if this_threads_recorder != NULL:
            raise RuntimeError("already recording on this thread")
        Py_INCREF(self)
        this_threads_recorder = <PyObject *>self
        gc.callbacks.append(self.collecting)

    def stop(self):
        """No more."""
        global this_threads_recorder
        gc.callbacks.remove(self.collecting)
        this_threads_recorder = NULL
        Py_DECREF(self)

    def collecting(self, phase, info):
        """A pause while this thread collects garbage: what finalizers compute is not the function's work."""
        if this_threads_recorder == <PyObject *>self:
            self.pause += 1 if phase == "start" else -1

    cdef bint knows(self, object tensor) except -1:
        cdef Leaf found = self.leaves.get(id(tensor))
        return found is not None and found.tensor() is tensor

    cdef int leaf(self, object tensor, object before, object like) except -1:
        cdef Leaf leaf
        if not self.knows(tensor):
            leaf = Leaf.__new__(Leaf)
            leaf.tensor, leaf.before, leaf.like = ref(tensor), before, like
            self.leaves[id(tensor)] = leaf
        return 0

    def alive(self):
        """(tensor, Leaf) of each tensor whose .grad was used and that is still there."""
        return [(t, x) for x in self.leaves.values() if (t := (<Leaf>x).tensor()) is not None]

    cdef void call(self, int kernel, int dtype, const void *args, size_t size, int threads):
        cdef Call c
        if self.pause:
            return
        c = Call.__new__(Call)
        c.kernel, c.dtype, c.threads = kernel, dtype, threads
        c.args = (<const char *>args)[:size]
        c.where = where()
        (self.calls if self.packing is None else self.packing).append(c)

    cdef void made(self, char *data, size_t nbytes, long serial):
        cdef Block b = self.live.pop(<size_t>data, None)
        if b is not None:  # another thread's garbage collector freed it
            b.freed = len(self.calls)
        if self.pause or self.packing is not None:
            self.aside.add(serial)
            return
        b = Block.__new__(Block)
        b.address, b.nbytes, b.serial, b.made, b.freed = <size_t>data, nbytes, serial, len(self.calls), -1
        self.blocks.append(b)
        self.live[b.address] = b

    cdef void freed(self, char *data):
        cdef Block b = self.live.pop(<size_t>data, None)
        if b is not None:
            b.freed = len(self.calls)


class paused:
    """Context in which nothing is recorded: work that is done once, such as an optimizer's first state."""

    def __enter__(self):
        self._recorder = recorder()
        if self._recorder is not None:
            self._recorder.pause += 1

    def __exit__(self, *exc):
        if self._recorder is not None:
            self._recorder.pause -= 1
        return False
