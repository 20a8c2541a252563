"""The build: C kernels once per (ISA, dtype) with their own flags, then one Cython extension per binding module.

All C code is linked into `nncore._core.runtime`; the other modules reach it through that one. Objects are rebuilt
when a file they include, or their command line, has changed (compiler-written dependency files).
NNCORE_DEBUG=1: bounds checks, assertions, address and undefined-behaviour sanitizers.
"""

import json
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("NNCORE_DEBUG", "") not in ("", "0")
X86 = platform.machine().lower() in ("x86_64", "amd64")

AVX2 = ["-mavx2", "-mfma", "-mbmi", "-mbmi2"]
AVX512 = AVX2 + ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mprefer-vector-width=512"]
ISAS = {"baseline": []}  # lowest first; the order is nn_isa_supported's
if X86:
    ISAS |= {"avx2": [*AVX2, "-DNN_ISA_AVX2"], "avx512": [*AVX512, "-DNN_ISA_AVX512"]}
DTYPES = {"f32": [], "f64": ["-DNN_F64"]}

# No -ffast-math: NaN and inf must survive. No contraction: where a product and a sum are fused is written out, so
# that results do not depend on the compiler's mood.
COMMON = ["-std=gnu11", "-Wall", "-Wextra", "-fPIC", "-fopenmp", "-fvisibility=hidden"]
COMMON += ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"] if DEBUG else []
COMMON += ["-O1", "-g", "-DNN_DEBUG", *SANITIZE] if DEBUG else ["-O3"]

MODULES = sorted(str(p) for p in [*Path("nncore/_core").glob("*.pyx"), *Path("nncore").glob("*.pyx")])


def c_objects():
    """(source, object name, flags) of every C object."""
    isas = "-DNN_ISAS=" + " ".join(f"NN_ISA({name})" for name in ISAS)
    for source in ("cpu", "memory", "threads"):
        yield f"csrc/{source}.c", source, [isas] if source == "cpu" else []
    for isa, isa_flags in ISAS.items():
        for dtype, dtype_flags in DTYPES.items():
            suffix = f"{isa}_{dtype}"
            yield "csrc/kernels.c", f"kernels_{suffix}", [*isa_flags, *dtype_flags, f"-DNN_SUFFIX={suffix}"]


def up_to_date(obj, command):
    """Whether the object is newer than all it was made from, by this command."""
    record = obj.with_suffix(".json")
    if not obj.exists() or not record.exists() or json.loads(record.read_text()) != command:
        return False
    made = obj.with_suffix(".d").read_text().replace("\\\n", " ").split(":", 1)[1].split()
    return all(Path(f).exists() and Path(f).stat().st_mtime <= obj.stat().st_mtime for f in made)


class BuildExt(build_ext):
    def build_extensions(self):
        self.parallel = self.parallel or os.cpu_count() or 1
        out = Path(self.build_temp) / ("csrc-debug" if DEBUG else "csrc")
        out.mkdir(parents=True, exist_ok=True)
        compiler = self.compiler.compiler_so[:1]
        objects, commands = [], []
        for source, name, flags in c_objects():
            obj = out / f"{name}.o"
            command = [
                *compiler,
                *COMMON,
                *flags,
                "-MMD",
                "-MF",
                str(obj.with_suffix(".d")),
                "-c",
                source,
                "-o",
                str(obj),
            ]
            objects.append(str(obj))
            if self.force or not up_to_date(obj, command):
                commands.append((obj, command))
        with ThreadPoolExecutor(self.parallel) as pool:
            list(pool.map(self.compile_object, commands))
        runtime = next(e for e in self.extensions if e.name == "nncore._core.runtime")
        runtime.extra_objects = objects
        runtime.depends += objects  # relink when one has changed
        super().build_extensions()

    def compile_object(self, job):
        obj, command = job
        self.spawn(command)
        obj.with_suffix(".json").write_text(json.dumps(command))


def extension(path):
    name = path[: -len(".pyx")].replace("/", ".").replace("\\", ".")
    link = ["-fopenmp", "-pthread", *SANITIZE] if name.endswith(".runtime") else SANITIZE
    flags = ["-fvisibility=hidden", "-Wno-unused-function", *(["-O1", "-g", *SANITIZE] if DEBUG else ["-O2", "-g0"])]
    return Extension(
        name,
        [path],
        include_dirs=["csrc"],
        depends=["csrc/nncore.h", "csrc/kernels.def", "csrc/ops.def", "csrc/optim.def", "csrc/tuning.h"],
        extra_compile_args=flags,
        extra_link_args=link,
        libraries=["m"],
    )


setup(
    # apart, as newer objects of one kind would look up to date to the other
    options={"build": {"build_base": "build/debug"}} if DEBUG else {},
    cmdclass={"build_ext": BuildExt},
    ext_modules=cythonize(
        [extension(p) for p in MODULES],
        build_dir="build/cython-debug" if DEBUG else "build/cython",
        force=DEBUG,
        compiler_directives={
            "language_level": "3",
            "boundscheck": DEBUG,
            "wraparound": DEBUG,
            "initializedcheck": DEBUG,
            "cdivision": True,
            "embedsignature": True,
        },
    ),
)
