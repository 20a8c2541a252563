"""The team of threads: counts and limits, concurrent callers, forks."""

import os
import select
import signal
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

import nncore
from nncore._core import dense, elementwise, reduction, runtime, tensor
from nncore._ops import rnn

from . import tolerance

from_array = tensor.from_array


def python(code, **environment):
    """Output of a fresh interpreter."""
    env = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ---- how many ----


def test_set_num_threads():
    """At least one, at most 256; anything but an integer is an error and changes nothing."""
    nncore.set_num_threads(3)
    assert nncore.get_num_threads() == runtime.get_num_threads() == 3
    nncore.set_num_threads(np.int64(2))
    for bad in (0, -1):
        with pytest.raises(ValueError, match="n: "):
            nncore.set_num_threads(bad)
    for bad in (True, 2.0, "2", None):
        with pytest.raises(TypeError, match="n: "):
            nncore.set_num_threads(bad)
    assert nncore.get_num_threads() == 2
    nncore.set_num_threads(10**30)
    assert nncore.get_num_threads() == 256


def test_omp_num_threads():
    """OMP_NUM_THREADS, and else the CPUs that the process may use, are the default."""
    code = "import nncore; print(nncore.get_num_threads())"
    assert python(code, OMP_NUM_THREADS="1") == "1"
    if hasattr(os, "sched_setaffinity"):
        one = min(os.sched_getaffinity(0))
        env = {"OMP_NUM_THREADS": ""}
        assert python(f"import os; os.sched_setaffinity(0, [{one}]); {code}", **env) == "1"
        assert 1 <= int(python(code, **env)) <= len(os.sched_getaffinity(0))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_affinity_is_followed():
    """The CPUs allowed later count too, until somebody sets a number."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU")
    code = """
import os, nncore
all = os.sched_getaffinity(0)
found = [nncore.get_num_threads()]
nncore.randn(1000000).exp()
for cpus in ([min(all)], all):
    os.sched_setaffinity(0, cpus)
    found.append(nncore.get_num_threads())
nncore.set_num_threads(3)
os.sched_setaffinity(0, [min(all)])
found.append(nncore.get_num_threads())
pid = os.fork()
if pid == 0:
    os._exit(nncore.get_num_threads())
print(*found, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    n = str(len(os.sched_getaffinity(0)))
    assert python(code, OMP_NUM_THREADS="").split()[1:] == ["1", n, "3", "3"]
    named = python(code, OMP_NUM_THREADS="5").split()
    assert named == ["5", "5", "5", "3", "3"], "a number in the environment is meant"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_counts_its_own_cpus():
    """A forked worker that is given one CPU uses one thread."""
    code = """
import os, nncore
nncore.get_num_threads()
pid = os.fork()
if pid == 0:
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    os._exit(nncore.get_num_threads())
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    if hasattr(os, "sched_setaffinity"):
        assert python(code, OMP_NUM_THREADS="") == "1"


QUOTAS = {
    "version 2": ("0::/\n", {"cpu.max": "150000 100000"}, 2),
    "version 2, whole": ("0::/\n", {"cpu.max": "200000 100000"}, 2),
    "version 2, less than one": ("0::/\n", {"cpu.max": "20000 100000"}, 1),
    "version 2, no limit": ("0::/\n", {"cpu.max": "max 100000"}, None),
    "version 2, own group": ("0::/a/b\n", {"a/b/cpu.max": "300000 100000", "a/cpu.max": "max 100000"}, 3),
    "version 2, group above": ("0::/a/b\n", {"a/b/cpu.max": "700000 100000", "a/cpu.max": "50000 50000"}, 1),
    "version 2, group of the host": ("0::/docker/x\n", {"cpu.max": "400000 100000"}, 4),
    "version 1": ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, 3),
    "version 1, no limit": ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
    "version 1, several controllers": (
        "5:memory:/x\n4:cpu,cpuacct:/a\n",
        {"cpu,cpuacct/a/cpu.cfs_quota_us": "100001", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"},
        2,
    ),
    "version 1, linked": (
        "4:cpuacct,cpu:/a\n",
        {"cpu/a/cpu.cfs_quota_us": "100000", "cpu/a/cpu.cfs_period_us": "100000"},
        1,
    ),
    "both versions": (
        "1:cpu:/\n0::/b\n",
        {"cpu/cpu.cfs_quota_us": "600000", "cpu/cpu.cfs_period_us": "100000", "b/cpu.max": "500000 100000"},
        5,
    ),
    "another controller's": ("2:cpuset:/a\n", {"cpuset/a/cpu.max": "100000 100000"}, None),
    "huge": ("0::/\n", {"cpu.max": "9000000000000000 1000"}, 256),
    "period of 0": ("0::/\n", {"cpu.max": "100000 0"}, None),
    "nonsense": ("0::\n:::\nx\n\n0::/\n", {"cpu.max": "many 100000"}, None),
    "empty files": ("", {"cpu.max": ""}, None),
}


@pytest.mark.parametrize("name", QUOTAS)
def test_control_groups(tmp_path, name):
    """The quota of the process's control group and of those above it, in both versions, in CPUs rounded up."""
    membership, files, expected = QUOTAS[name]
    (tmp_path / "cgroup").write_text(membership)
    for path, text in files.items():
        file = tmp_path / "fs" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    assert runtime.cgroup_cpus(tmp_path / "fs", tmp_path / "cgroup") == expected


def test_no_control_groups(tmp_path):
    """Files that are not there limit nothing; long names do no harm."""
    assert runtime.cgroup_cpus(tmp_path, tmp_path / "none") is None
    (tmp_path / "long").write_text("0::/" + "a/" * 250 + "\n7:" + "cpu," * 200 + ":/" + "b" * 300)
    assert runtime.cgroup_cpus(tmp_path, tmp_path / "long") is None
    assert runtime.cgroup_cpus("/" + "c" * 3000, tmp_path / "long") is None
    assert runtime.cgroup_cpus() is None or runtime.cgroup_cpus() >= 1


def test_threadpoolctl_sees_the_team():
    """The OpenMP that it lists is the one that limits us."""
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    assert any(lib["user_api"] == "openmp" for lib in threadpoolctl.threadpool_info())


def test_threadpoolctl():
    """A limit set by others through OpenMP holds here, and ends when theirs does."""
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    if int(python("import nncore; print(nncore.get_num_threads())", OMP_NUM_THREADS="")) < 2:
        pytest.skip("with one CPU, OpenMP's count is 1 already, so a limit of 1 is no change")
    x = from_array(np.ones(100_000, np.float32))
    runtime.set_num_threads(4)
    runtime.set_parallel_threshold(0.0)
    with threadpoolctl.threadpool_limits(1):
        assert nncore.get_num_threads() == 1
        runtime.threads_used(True)
        elementwise.ewise(runtime.OPS["neg"], x)
        assert runtime.threads_used(True) == 1
    assert nncore.get_num_threads() == 4
    elementwise.ewise(runtime.OPS["neg"], x)
    assert runtime.threads_used(True) == 4


def test_threads_set_within_a_limit_outlive_it():
    """set_num_threads inside somebody's limit counts once that limit has ended."""
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    with threadpoolctl.threadpool_limits(1):
        runtime.set_num_threads(5)
    assert nncore.get_num_threads() == 5


def test_tiny_work_stays_on_one_thread():
    """A second thread is asked only where it pays."""
    runtime.set_num_threads(4)
    x = from_array(np.ones((10, 10), np.float32))
    runtime.threads_used(True)
    dense.matmul(x, x)
    elementwise.ewise(runtime.OPS["exp"], x)
    assert runtime.threads_used(True) == 1
    big = from_array(np.ones(10_000_000, np.float32))
    elementwise.ewise(runtime.OPS["exp"], big)
    assert runtime.threads_used(False) <= 4
    assert runtime.threads_used(True) >= 1
    assert runtime.threads_used(True) == 0


def test_the_team_grows_and_shrinks(rng):
    """Any order of thread counts; more threads than chunks are not used."""
    x = rng.standard_normal(10 * 16384).astype(np.float32)
    runtime.set_parallel_threshold(0.0)
    for threads in (2, 16, 3, 40, 1, 8):
        runtime.set_num_threads(threads)
        runtime.threads_used(True)
        y = elementwise.ewise(runtime.OPS["neg"], from_array(x))
        assert runtime.threads_used(True) == min(threads, 10)
        tolerance.same_bits(np.asarray(y), -x)


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="this system does not count threads' time")
def test_idle_threads_sleep():
    """After work the team comes to rest: from then on its threads are given no CPU time at all."""
    code = """
import os, time, numpy as np, nncore
from nncore._core import runtime
from nncore.tests.test_threads import from_array, elementwise
before = set(os.listdir("/proc/self/task"))
runtime.set_num_threads(4)
runtime.set_parallel_threshold(0.0)
elementwise.ewise(runtime.OPS["neg"], from_array(np.ones(100_000, np.float32)))
assert runtime.threads_used() == 4
team = set(os.listdir("/proc/self/task")) - before
def used():
    return [open(f"/proc/self/task/{t}/schedstat").read().split()[0] for t in sorted(team)]
rest = False
for _ in range(100):
    former = used()
    time.sleep(0.05)
    rest = used() == former
    if rest:
        break
print(len(team), rest)
""".replace("nncore.tests", __package__)
    assert python(code, OPENBLAS_NUM_THREADS="1") == "3 True"


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="this system does not list threads")
def test_callers_share_one_team():
    """8 Python threads that compute at once start no more threads than one of them would."""
    code = """
import os, threading, nncore
from nncore._core import runtime
from nncore.tests.test_threads import work
def count():
    return len(os.listdir("/proc/self/task"))
runtime.set_num_threads(3)
runtime.set_parallel_threshold(0.0)
alone = count()
most, barrier = [], threading.Barrier(8)
def caller(i):
    barrier.wait()
    for _ in range(10):
        work(i)
        most.append(count())
callers = [threading.Thread(target=caller, args=(i,)) for i in range(8)]
for t in callers: t.start()
for t in callers: t.join()
assert runtime.threads_used() == 3
print(max(most) - alone)
""".replace("nncore.tests", __package__)
    assert int(python(code, OPENBLAS_NUM_THREADS="1")) <= 8 + 2


def test_floating_point_state_of_the_caller(dtype):
    """Kernels flush denormals; the caller's own arithmetic, before and after and on every thread, does not."""
    runtime.set_parallel_threshold(0.0)
    small = np.array([np.finfo(dtype).tiny], dtype)
    for threads in (1, 3):
        runtime.set_num_threads(threads)
        y = elementwise.ewise(runtime.OPS["scale"], from_array(np.full(100_000, small[0])), None, None, 0.5)
        assert not np.asarray(y).any()
        assert small[0] * dtype.type(0.5) != 0


# ---- several callers ----


def work(seed):
    """A few kernels of every kind, from a seed; the results as arrays."""
    rng = np.random.default_rng(seed)
    a = from_array(rng.standard_normal((90, 70)).astype(np.float32))
    b = from_array(rng.standard_normal((70, 130)).astype(np.float32))
    y = dense.matmul(a, b)
    s = reduction.softmax(y, False)
    total, _ = reduction.reduce(reduction.SUM, s, 0, 1)
    large = elementwise.ewise(runtime.OPS["tanh"], from_array(rng.standard_normal(50_000).astype(np.float32)))
    norm = elementwise.ewise_sum(runtime.OPS["square"], large)
    w = [from_array(rng.standard_normal((4 * 130, n)).astype(np.float32)) for n in (70, 130)]
    states, _, _ = rnn.layer("LSTM", a, rnn.equal_steps(30, 3), None, None, [(*w, None, None)])
    return [np.asarray(t) for t in (y, s, total, large, norm, states)]


@pytest.mark.parametrize("threads", [1, 3])
def test_concurrent_callers(threads):
    """8 Python threads at once, each with its own work: every result is the one it gives alone."""
    expected = [work(seed) for seed in range(8)]
    runtime.set_num_threads(threads)
    runtime.set_parallel_threshold(0.0)
    wrong, done = [], []
    start = threading.Barrier(8)

    def caller(i):
        try:
            start.wait(30)
            for _ in range(15):
                for got, want in zip(work(i), expected[i], strict=True):
                    tolerance.same_bits(got, want, f"caller {i}")
            done.append(i)
        except Exception as e:
            wrong.append(e)

    callers = [threading.Thread(target=caller, args=(i,), daemon=True) for i in range(8)]
    for c in callers:
        c.start()
    for c in callers:
        c.join(60)
    assert not wrong, wrong[0]
    assert sorted(done) == list(range(8)), "a caller hangs"


def test_the_number_of_threads_may_change_meanwhile():
    """Another Python thread that sets the number of threads does not disturb a running product (in a process of its
    own: what may go wrong is memory)."""
    code = """
import threading, numpy as np
from nncore._core import dense, runtime
from nncore._core.tensor import from_array
rng = np.random.default_rng(0)
a = from_array(np.asfortranarray(rng.standard_normal((600, 4000)).astype(np.float32)))
b = from_array(rng.standard_normal((4000, 200)).astype(np.float32))
expected = np.asarray(dense.matmul(a, b)).copy()
runtime.set_parallel_threshold(1.0)
stop = False
def change():
    i = 0
    while not stop:
        i += 1
        runtime.set_num_threads((1, 9)[i % 2])
t = threading.Thread(target=change)
t.start()
try:
    for i in range(60):
        assert np.array_equal(np.asarray(dense.matmul(a, b)), expected), i
finally:
    stop = True
    t.join()
print("same")
"""
    assert python(code) == "same"


# ---- fork ----


def in_child(check, seconds=30):
    """Runs check() in a forked child; fails if it fails or hangs there."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # Python 3.12: the process has threads, which is the point here
        pid = os.fork()
    if pid == 0:
        message = b"?"
        try:
            check()
            message = b"ok"
        except BaseException as e:
            message = repr(e).encode()[:4000] or b"?"
        finally:
            os.write(write, message)
            os._exit(0)
    os.close(write)
    ready, _, _ = select.select([read], [], [], seconds)
    message = os.read(read, 4096).decode() if ready else "hangs"
    os.close(read)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert message == "ok", f"the forked child: {message}"


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@forks
def test_fork_after_parallel_work():
    """A child computes correctly and in parallel, and so does its child; the parent goes on."""
    expected = work(1)
    runtime.set_num_threads(3)
    runtime.set_parallel_threshold(0.0)

    def same():
        runtime.threads_used(True)
        for got, want in zip(work(1), expected, strict=True):
            tolerance.same_bits(got, want)
        assert runtime.threads_used(True) == 3

    def child():
        same()
        in_child(same, 10)
        same()

    same()
    for _ in range(3):
        in_child(child)
        same()


@forks
def test_fork_before_parallel_work():
    """A child may be the first to start a team (in a fresh process: here one has long been started)."""
    code = """
import os
from nncore._core import runtime
import numpy as np
from nncore._core import elementwise
from nncore._core.tensor import from_array
runtime.set_num_threads(3)
runtime.set_parallel_threshold(0.0)
pid = os.fork()
y = elementwise.ewise(runtime.OPS["neg"], from_array(np.ones(100000, np.float32)))
assert (np.asarray(y) == -1).all() and runtime.threads_used(True) == 3
if pid == 0:
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert python(code) == "7"


@forks
def test_fork_while_others_compute():
    """A fork in the midst of another thread's parallel work: parent and child both go on."""
    expected = work(2)
    runtime.set_num_threads(3)
    runtime.set_parallel_threshold(0.0)
    stop, wrong = threading.Event(), []

    def caller():
        while not stop.is_set():
            try:
                for got, want in zip(work(2), expected, strict=True):
                    tolerance.same_bits(got, want)
            except AssertionError as e:
                wrong.append(e)

    def same():
        for got, want in zip(work(2), expected, strict=True):
            tolerance.same_bits(got, want)

    t = threading.Thread(target=caller, daemon=True)
    t.start()
    try:
        for _ in range(10):
            in_child(same)
    finally:
        stop.set()
        t.join(30)
    assert not wrong, wrong[0]
    assert not t.is_alive(), "the parent's caller hangs"


@forks
def test_multiprocessing_fork():
    """A pool of forked workers, as data loaders use."""
    import multiprocessing

    expected = [[a.tolist() for a in work(seed)[2:3]] for seed in range(4)]
    runtime.set_num_threads(2)
    runtime.set_parallel_threshold(0.0)
    work(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            got = pool.map_async(_in_pool, range(4)).get(timeout=60)
    assert got == expected


def _in_pool(seed):
    return [a.tolist() for a in work(seed)[2:3]]


COVERS = {}
