"""A recorded step, and its replay in one call.

Two recordings of the same function are compared, call by call: what differs was a constant that is none. The second one becomes
the plan. Where an argument points into memory that was made while recording, it is moved to the plan's arena, in which
each block has a place only from its first use to its last.
"""
from array import array
from bisect import bisect_right
from operator import itemgetter

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy, memset

from . cimport runtime
from .c cimport *
from .record cimport Block, Call, Leaf, Recorder
from .tensor cimport Storage, TensorBase, all_storages, alone, new_storage

from .describe import describe
from .indexing import raise_if_bad
from .record import RecordError
from .runtime import KERNELS, scratch_bytes
from .tensor import DTYPES

# Kernels that take (seed, stream), and where: a replay takes the next stream.
SEED_AT = {NN_K_random: RANDOM_SEED, NN_K_dropout: DROPOUT_SEED}

cdef size_t LINE = 64


cdef class Moving:
    """A gradient from before the call. Nobody else knows its memory, so that it may be elsewhere at the next call: a plan's
    arguments follow it."""

    cdef bint fits(self) noexcept:
        """Whether there is such a gradient now."""
        cdef TensorBase g = self.leaf.grad_
        cdef bint fits
        cdef int i
        if g is None or self.leaf._grad_dropped or g.code != self.like.code or g.ndim != self.like.ndim:
            return False
        for i in range(g.ndim):
            if g.dims[i] != self.like.dims[i] or g.steps[i] != self.like.steps[i]:
                return False
        fits = g.channels_last == self.like.channels_last
        g = None  # one name less for it
        return fits and alone(self.leaf)

    cdef int begin(self) except -1:
        cdef size_t to
        if not self.fits():
            raise RuntimeError("grad: changed by another thread during the call of a compiled function")
        self.held = (<TensorBase>self.leaf.grad_).storage
        if self.held.data != self.at:
            self.at = self.held.data
            for to, offset in self.places:
                (<size_t *>to)[0] = <size_t>self.at + <size_t>offset
        return 0

    cdef void end(self) noexcept:
        if self.held is not None:
            self.held.version += self.written
            self.held = None


def moving(Recorder r, Leaf x, TensorBase leaf):
    """The gradient of before a recording as a Moving, which the recording no longer holds; None if its memory may be known to
    others."""
    cdef Moving m
    cdef Storage s
    cdef PyObject *p = <PyObject *>x.before
    cdef PyObject *g = <PyObject *>leaf.grad_
    if x.like is None:
        return None
    cdef bint written = x.before in r.written
    cdef bint stays = leaf.grad_ is not None and <PyObject *>(<TensorBase>g).storage == p
    if p.ob_refcnt != 1 + written + stays or (stays and g.ob_refcnt != 1):
        return None
    s = x.before
    m = Moving.__new__(Moving)
    m.leaf, m.like, m.start, m.nbytes, m.places = leaf, x.like, <size_t>s.data, s.nbytes, []
    m.written = bool(r.written.pop(s, 0))
    x.before = any
    return m


cdef class Word:
    """What eight bytes of an argument are: a number, or the address of a block, of an array or of memory that was there before."""
    cdef readonly object block   # Block, or None
    cdef readonly object moving  # Moving, or None
    cdef readonly object array   # Bytes of an array, or None
    cdef readonly object value   # the number, or the distance from the start of block or gradient


cdef class Bytes:
    """Arguments, or an array that they point to, word by word."""
    cdef readonly bytes data
    cdef readonly list words     # (offset, Word) of those that are addresses of blocks or arrays


cdef class Step:
    """A call with its words understood."""
    cdef readonly Call call
    cdef readonly Bytes args
    cdef readonly object prepare  # what is set anew before each replay, or None
    cdef readonly object stream   # that it draws from, or None
    cdef readonly object index    # what the indices are that it checks, or None
    cdef public list reads        # blocks


def understand(Recorder r, list moving):
    """The recording as Steps. Arrays and constants are looked into, what moves is told by whose gradient it is; the rest are plain
    numbers and addresses of memory that was there before (it is not told which)."""
    cdef Call c
    cdef Step s
    cdef Block b
    ranges = {address: (nbytes, owner) for address, nbytes, owner in r.ranges}
    held = [(<size_t>(<Storage>k).data, (<Storage>k).nbytes, None) for k in r.constants]
    held += [((<Moving>m).start, (<Moving>m).nbytes, m) for m in moving]
    held.sort(key=itemgetter(0, 1))
    starts = [a for a, _, _ in held]
    prepare = dict(r.prepare)
    blocks = sorted(r.blocks, key=_made)
    live, steps, at = [], [], 0
    for i, c in enumerate(r.calls):
        while at < len(blocks) and (<Block>blocks[at]).made <= i:
            live.append(blocks[at])
            at += 1
        live = [x for x in live if (<Block>x).freed < 0 or (<Block>x).freed > i]
        s = Step.__new__(Step)
        s.call, s.prepare, s.stream, s.index = c, prepare.get(i), r.drawn.get(i), r.indices.get(i)
        s.args = _words(c.args, live, ranges, held, starts)
        steps.append(s)
    for calls in r.packs.values():
        for i, c in enumerate(calls):
            s = Step.__new__(Step)
            s.call, s.args = c, _words(c.args, [], ranges, [], [])
            calls[i] = s
    return steps


def edited(Step s, bytes data, list words, Call call=None):
    """The step with other arguments, and as another call."""
    cdef Step e = Step.__new__(Step)
    e.call, e.prepare, e.stream, e.index = s.call if call is None else call, s.prepare, s.stream, s.index
    e.args = Bytes.__new__(Bytes)
    e.args.data, e.args.words = data, words
    return e


def own(size_t nbytes):
    """The address of memory of the plan's own, for as long as its calls use it."""
    cdef Word w = Word.__new__(Word)
    cdef Block b = Block.__new__(Block)
    b.nbytes, b.freed = nbytes, -1
    w.block, w.value = b, 0
    return w


cpdef long _made(Block b):
    return b.made


cdef Bytes _words(bytes data, list live, dict ranges, list held, list starts):
    cdef Bytes out = Bytes.__new__(Bytes)
    cdef Word w
    cdef Block b
    cdef uint64_t v
    cdef size_t i
    out.data, out.words = data, []
    for i in range(0, len(data) // 8 * 8, 8):
        memcpy(&v, <const char *>data + i, 8)
        if v < 65536:
            continue
        w = None
        for x in live:
            b = x
            if b.address <= v < b.address + max(b.nbytes, 1):
                w = Word.__new__(Word)
                w.block, w.value = b, v - b.address
                break
        if w is None and v in ranges:
            w = Word.__new__(Word)
            w.array = _words((<const char *><size_t>v)[:ranges[v][0]], live, ranges, held, starts)
        if w is None and held:
            k = bisect_right(starts, v) - 1
            if k >= 0 and v < held[k][0] + held[k][1]:
                w = Word.__new__(Word)
                w.moving = held[k][2]
                w.value = ((<const char *><size_t>held[k][0])[:held[k][1]] if w.moving is None else v - held[k][0])
        if w is not None:
            out.words.append((i, w))
    return out


cdef object _canonical(Bytes b, dict numbers, _Packs packs, size_t skip, bint pointers_only):
    """Equal for equal work: blocks as numbers in the order of their first use, arrays and constants by what is in them, packed
    weights as nothing: whether there are some is the plan's choice."""
    cdef Word w
    cdef char *p
    cdef uint64_t v
    cdef size_t i
    cdef bytearray plain = bytearray(b.data)
    seen = []
    p = plain
    for at, x in b.words:
        w = x
        if w.block is not None:
            if w.block not in packs.blocks:
                seen.append((at, numbers.setdefault(w.block, len(numbers)), w.value))
        elif w.array is not None:
            seen.append((at, _canonical(w.array, numbers, packs, 0, pointers_only)))
        elif w.moving is not None:
            seen.append((at, id((<Moving>w.moving).leaf), w.value))
        else:
            seen.append((at, w.value))
        memset(p + <size_t>at, 0, 8)
    for i in range(0, len(plain) // 8 * 8, 8):
        memcpy(&v, p + i, 8)
        if v > 65536 and packs.has(v):
            memset(p + i, 0, 8)
    if skip:
        memset(p + skip, 0, 8)
    return seen if pointers_only else (seen, bytes(plain))


cdef class _Packs:
    """The packed weights of a recording: results of kernels named *_pack, whose last argument is where they go."""
    cdef set blocks
    cdef list ranges

    def __init__(self, list steps, Recorder r):
        cdef Step s
        self.blocks = set()
        self.ranges = [(<size_t>(<Storage>p).data, (<Storage>p).nbytes) for p in r.found.values()]
        for x in steps:
            s = x
            if _packs(s.call.kernel) and s.args.words:
                self.blocks.add((<Word>s.args.words[len(s.args.words) - 1][1]).block)


    cdef bint has(self, uint64_t v):
        for start, size in self.ranges:
            if start <= v < start + size:
                return True
        return False


cdef bint _packs(int kernel):
    return KERNELS[kernel].endswith("_pack")


def compare(list first, Recorder r1, list second, Recorder r2):
    """Raises RecordError, naming the line, unless both recordings do the same work."""
    cdef Step a, b
    cdef _Packs mine = _Packs(first, r1), other = _Packs(second, r2)
    numbers, others = {}, {}
    first = [s for s in first if not _packs((<Step>s).call.kernel)]
    second = [s for s in second if not _packs((<Step>s).call.kernel)]
    for i in range(max(len(first), len(second))):
        if i >= len(first) or i >= len(second):
            b = (second if i < len(second) else first)[i]
            raise RecordError(f"the compiled function did not do the same work twice: {KERNELS[b.call.kernel]} ran in one of two "
                              "calls with equal arguments only; what it depends on must be an argument", b.call.where)
        a, b = first[i], second[i]
        same = a.call.kernel == b.call.kernel and a.call.dtype == b.call.dtype and _same_stream(a.stream, b.stream)
        if same:
            skip = runtime.scratch_field(a.call.kernel)
            prepared = a.prepare is not None
            same = (_canonical(_without_stream(a), numbers, mine, skip, prepared)
                    == _canonical(_without_stream(b), others, other, skip, prepared))
        if not same:
            raise RecordError(f"the compiled function did not do the same work twice: {KERNELS[b.call.kernel]} got other numbers "
                              "or memory in the second of two calls with equal arguments; a number that changes from call to "
                              "call must be an argument", b.call.where)


cdef bint _same_stream(a, b):
    return a is b if a is None or b is None else a.generator is b.generator and a.which == b.which


cdef Bytes _without_stream(Step s):
    if s.stream is None:
        return s.args
    cdef Bytes out = Bytes.__new__(Bytes)
    cdef bytearray data = bytearray(s.args.data)
    cdef size_t at = SEED_AT[s.call.kernel]
    data[at:at + 16] = bytes(16)
    out.data, out.words = bytes(data), s.args.words
    return out


def place(list spans):
    """Offsets for blocks (size, first use, last use) such that those in use together do not overlap, and the size of the whole.
    Largest first, each at the lowest place that is free."""
    order = sorted(range(len(spans)), key=lambda i: -spans[i][0])
    placed, offsets, total = [], [0] * len(spans), 0
    for i in order:
        size, first, last = spans[i]
        at = 0
        for start, end, f, l in placed:  # by start
            if f <= last and first <= l and at < end and start < at + size:
                at = end
        offsets[i] = at
        placed.append((at, at + size, first, last))
        placed.sort()
        total = max(total, at + size)
    return offsets, total


cdef class Plan:
    """Calls with their arguments, the memory they need, and what is to be set before each replay."""
    cdef nn_call *calls
    cdef int64_t n
    cdef Storage args            # of all calls, and the arrays they point to
    cdef readonly Storage arena
    cdef Storage scratch
    cdef size_t scratch_bytes
    cdef int threads
    cdef nn_trial trial          # whether its kernels are worth sharing
    cdef list steps, prepare, packs, keep, early
    cdef list parts              # of the calls: (end, what is set and which streams are taken before, the check after it)
    cdef list written
    cdef list moving             # of Moving
    cdef dict places             # id of block -> offset in the arena
    cdef readonly long replays
    cdef readonly list outputs   # of tensors in the arena

    def __init__(self, list steps, Recorder r, list kept, list moving):
        """kept: blocks that are read after the replay."""
        cdef Word w
        cdef Step s
        cdef Block b
        cdef size_t total = 0
        cdef dict uses = {}
        self.steps, self.moving = steps, moving
        for i, x in enumerate(steps):
            s = x
            s.reads = []
            self._uses(s.args, i, uses, s.reads)
        for b in kept:
            if id(b) in uses:
                uses[id(b)][2] = len(steps)
            else:
                uses[id(b)] = [b, 0, len(steps)]
        spans = [((<Block>u[0]).nbytes + LINE - 1 & ~(LINE - 1), u[1], u[2]) for u in uses.values()]
        # blocks that follow each other are at different places of a page, or a store to one would stall loads from another
        spans = [(size + (23 * LINE if size >= 4096 else 0), f, l) for size, f, l in spans]
        offsets, size = place(spans)
        self.places = dict(zip(uses, offsets))
        self.arena = new_storage(max(size, LINE))
        self.keep = [r, [u[0] for u in uses.values()]]
        # arguments
        self.n = len(steps)
        for x in steps:
            total += self._size((<Step>x).args)
        for packing in r.packs.values():
            for x in packing:
                total += self._size((<Step>x).args)
        self.args = new_storage(total + <size_t>(self.n + 1) * sizeof(nn_call) + LINE)
        self.calls = <nn_call *>self.args.data
        cdef char *at = self.args.data + ((<size_t>(self.n + 1) * sizeof(nn_call) + LINE) & ~(LINE - 1))
        self.prepare, self.packs, self.early, self.parts = [], [], [], []
        streams, prepare, late = {}, [], []
        for i in range(self.n):
            s = steps[i]
            self.calls[i].kernel, self.calls[i].dtype, self.calls[i].args = s.call.kernel, s.call.dtype, at
            if s.prepare is not None:
                self.prepare.append(s.prepare)
                prepare.append((i, <size_t>at, s.prepare))
            if s.stream is not None:
                streams.setdefault(s.stream.which, []).append((i, <size_t>at + <size_t>SEED_AT[s.call.kernel]))
            if s.index is not None:
                # indices that are arguments are checked before anything is done, computed or written ones as they are there
                if _made_inside(s.args, r):
                    late.append((i + 1, (<size_t>at, s.index)))
                else:
                    self.early.append((<size_t>at, s.index))
            at = self._write(s.args, at)
        taken, first = [], 0
        for stream in r.streams:  # in the order in which they were taken
            found = streams.get(stream.which, [])
            first = max(first, found[0][0]) if found else first
            taken.append((first, stream.generator, [to for _, to in found]))
        start = 0
        for end, check in [*late, (self.n + 1, None)]:
            self.parts.append((min(end, self.n), [p[1:] for p in prepare if start <= p[0] < end],
                               [t[1:] for t in taken if start <= t[0] < end], check))
            start = end
        for storage, packing in r.packs.items():
            made = []
            for x in packing:
                s = x
                made.append((s.call.kernel, s.call.dtype, <size_t>at))
                at = self._write(s.args, at)
            self.packs.append([storage, (<Storage>storage).version, made])
        self.written = [k for k, times in r.written.items() if times]
        self.keep.append(list(r.found.values()))
        self._keep_outside()
        self._measure()

    cdef void _uses(self, Bytes b, int64_t i, dict uses, list reads):
        cdef Word w
        for _, x in b.words:
            w = x
            if w.block is not None:
                u = uses.setdefault(id(w.block), [w.block, i, i])
                u[2] = i
                reads.append(w.block)
            elif w.array is not None:
                self._uses(w.array, i, uses, reads)

    cdef size_t _size(self, Bytes b):
        cdef size_t n = (<size_t>len(b.data) + LINE) & ~(LINE - 1)
        for _, x in b.words:
            if (<Word>x).array is not None:
                n += self._size((<Word>x).array)
        return n

    cdef char *_write(self, Bytes b, char *at):
        """Writes b at `at` with addresses in the arena; gives the next free place."""
        cdef Word w
        cdef char *here = at
        cdef size_t to
        cdef bytes content
        memcpy(at, <const char *>b.data, len(b.data))
        at += (<size_t>len(b.data) + LINE) & ~(LINE - 1)
        for offset, x in b.words:
            w = x
            if w.block is not None:
                to = <size_t>self.arena.data + <size_t>self.places[id(w.block)] + <size_t>w.value
            elif w.array is not None:
                to = <size_t>at
                at = self._write(w.array, at)
            elif w.moving is not None:
                (<Moving>w.moving).places.append((<size_t>here + <size_t>offset, w.value))
                continue  # the first replay says where it is
            else:
                continue  # a constant, which is kept
            memcpy(here + <size_t>offset, &to, 8)
        return at

    cdef _keep_outside(self):
        """Holds on to all memory outside of the plan that its arguments point to. What other threads have made since the
        recording began only lies where something was that is no more."""
        cdef uint64_t v
        cdef Storage s
        cdef Bytes b
        cdef Recorder r = self.keep[0]
        words = set()
        pending = [(<Step>x).args for x in self.steps] + [(<Step>x).args for x in sum(r.packs.values(), [])]
        while pending:
            b = pending.pop()
            inside = {at for at, _ in b.words}  # their memory is free, and may be somebody else's by now
            for i in range(0, len(b.data) // 8 * 8, 8):
                memcpy(&v, <const char *>b.data + <size_t>i, 8)
                if v >= 65536 and i not in inside:
                    words.add(v)
            pending += [(<Word>x).array for _, x in b.words if (<Word>x).array is not None]
        order = sorted(words)
        for s in all_storages():
            if s.data == NULL or s.serial > r.first and s.borrowed == NULL and s.serial not in r.aside:
                continue
            k = bisect_right(order, <size_t>s.data + (s.nbytes - 1 if s.nbytes else 0)) - 1
            if k >= 0 and order[k] >= <size_t>s.data:
                self.keep.append(s)

    def _measure(self):
        """Scratch memory for the number of threads in use."""
        cdef size_t most
        self.threads = runtime.hold()
        calls = [(self.calls[i].kernel, self.calls[i].dtype, <size_t>self.calls[i].args) for i in range(self.n)]
        for _, _, packing in self.packs:
            calls += packing
        most = max([scratch_bytes(*call) for call in calls], default=0)
        if self.scratch is None or most > self.scratch_bytes:
            self.scratch = new_storage(max(most, LINE))
            self.scratch_bytes = most
        for kernel, _, at in calls:
            if runtime.scratch_field(kernel):
                (<void **>(<size_t>at + runtime.scratch_field(kernel)))[0] = self.scratch.data

    def tensor(self, Block block, TensorBase like):
        """A tensor like `like`, which lies in the block, on the plan's memory."""
        cdef TensorBase t = like.alias()
        t.storage = self.arena
        t.data = self.arena.data + <size_t>self.places[id(block)] + (<size_t>like.data - block.address)
        return t

    def valid(self):
        """valid, for what is set before each of its replays."""
        return valid(self.prepare)

    def replay(self, int64_t[:] times=None):
        """Runs all calls. times: gets n + 1 clock readings."""
        cdef uint64_t seed, stream
        cdef size_t to
        cdef list pack
        cdef Storage s
        cdef int64_t *ns = NULL
        cdef int64_t at = 0
        if times is not None:
            ns = &times[0]
        for to, name in self.early:
            runtime.run(NN_K_index, NN_FLOAT32, <const void *>to)
            raise_if_bad(to, name)
        for x in self.packs:
            pack = x
            s = pack[0]
            if s.version != <long>pack[1]:
                for kernel, dtype, to in pack[2]:
                    while runtime.hold() != self.threads:
                        self._measure()
                    runtime.run(kernel, dtype, <const void *>to)
                pack[1] = s.version
        witness = runtime.witnessing()
        if witness is not None and times is None:
            times = array("q", bytes(8 * (self.n + 1)))
            ns = &times[0]
        runtime.trial_begin(&self.trial)
        try:
            for x in self.moving:
                (<Moving>x).begin()
            for end, prepare, streams, check in self.parts:
                for to, p in prepare:
                    p.apply(to)
                for generator, places in streams:
                    seed, stream = generator.next_stream()
                    for to in places:
                        (<uint64_t *>to)[0] = seed
                        (<uint64_t *>to)[1] = stream
                while runtime.hold() != self.threads:
                    self._measure()
                runtime.replay(self.calls + at, <int64_t>end - at, ns + at if ns != NULL else NULL)
                at = end
                if check is not None:
                    raise_if_bad(*check)
        finally:
            runtime.trial_end(&self.trial)
            for x in self.moving:
                (<Moving>x).end()
            for x in self.written:
                s = x
                s.version += 1
        self.replays += 1
        if witness is not None:
            witness.replayed(self, times)

    @property
    def arena_bytes(self):
        """What the blocks take."""
        return self.arena.nbytes

    def __len__(self):
        return self.n

    def describe(self):
        """Of each call in order: (name, shapes, FLOP, bytes, dtype, [(offset in the arena, bytes) of the blocks it uses], threads,
        (file, line))."""
        cdef int64_t i
        cdef Step s
        cdef int threads = 1 if self.trial.alone else self.threads
        found = []
        for i in range(self.n):
            s = self.steps[i]
            blocks = {self.places[id(b)]: (<Block>b).nbytes for b in s.reads}
            about = describe(self.calls[i].kernel, self.calls[i].dtype, <size_t>self.calls[i].args)
            found.append((*about, DTYPES[self.calls[i].dtype].name, list(blocks.items()), min(s.call.threads, threads), s.call.where))
        return found


cdef bint _made_inside(Bytes index, Recorder r) except -1:
    """Whether the indices that a call reads are computed or written by the recording."""
    cdef Storage s
    cdef uint64_t at
    memcpy(&at, <const char *>index.data + INDEX_X, 8)
    if any((<Word>w).block is not None and offset == INDEX_X for offset, w in index.words):
        return True
    for s, times in r.written.items():
        if times and <uint64_t>s.data <= at < <uint64_t>s.data + s.nbytes:
            return True
    return False


cpdef bint valid(list prepare) except -1:
    """Whether what is set before each replay still is of the recorded kind."""
    for p in prepare:
        if not p.check():
            return False
    return True


def writer(list steps, Block b):
    """(file, line) of the first call that uses the block."""
    for s in steps:
        for _, w in (<Step>s).args.words:
            if (<Word>w).block is b:
                return (<Step>s).call.where
    return "?", 0


def in_use():
    """The serials of all memory of tensors."""
    return {(<Storage>s).serial for s in all_storages()}


def planned(Recorder r):
    """The storages from outside that a recording wrote."""
    cdef Storage s
    found = [k for k, times in r.written.items() if times]
    for s in found:
        s.planned = True
    return found


def block_of(Recorder r, TensorBase t):
    """The block of r in which t lies, or None: memory that was there before."""
    return r.live.get(<size_t>t.storage.data)
