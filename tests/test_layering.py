"""Calls go down: no module imports from a layer above its own, and each C interface has one place.

_core < _tape < _ops < _tensor, _grad, _graph, _random, _config, _replay < nn, optim, data < train < cli
"""

import ast
import re
from pathlib import Path

import pytest

import nncore

PACKAGE = Path(nncore.__file__).parent
SOURCE = PACKAGE.parent / "csrc"

# Layers by the first part of the name below nncore; modules on one level may import each other.
LAYERS = {
    "_core": 0,
    "_tape": 1,
    "_ops": 2,
    "_tensor": 3,
    "_grad": 3,
    "_graph": 3,
    "_random": 3,
    "_config": 3,
    "nn": 4,
    "optim": 4,
    "data": 4,
    "_replay": 3,
    "_profile": 5,
    "_plan": 5,
    "_watch": 5,
    "_model_file": 5,
    "_callbacks": 5,
    "train": 5,
    "cli": 6,
    "__main__": 7,
}
ALLOWED = {
    ("_ops", "_random"): "dropout takes its stream of random numbers from the default generator",
    ("_config", ""): "show_config names the version",
    ("cli", ""): "the command line names the version and is the library's user",
    ("_model_file", ""): "files record the version",
}


def layer(module):
    """'nncore._ops.shape' -> '_ops'; 'nncore' -> ''."""
    return (module.split(".") + [""])[1]


def imports(path, module):
    """(line, imported nncore module) of every import in a Python or Cython source, functions' bodies included."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, a.name) for a in node.names if a.name.split(".")[0] == "nncore")
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}:{node.lineno}: relative import in the library"
                if (node.module or "").split(".")[0] == "nncore":
                    for a in node.names:
                        below = f"{node.module}.{a.name}"
                        yield node.lineno, below if node.module == "nncore" and layer(below) in LAYERS else node.module
        return
    for number, line in enumerate(text.splitlines(), 1):
        m = re.match(r"\s*(?:from|cimport|import)\s+(nncore[\w.]*|\.[\w.]*)(?:\s+c?import\s+(\w+))?", line)
        if m:
            name = m[1] if m[1].startswith("nncore") else f"{module.rpartition('.')[0]}.{m[1].lstrip('.') or m[2]}"
            yield number, name


def modules():
    for path in sorted(PACKAGE.rglob("*")):
        if path.suffix in (".py", ".pyx", ".pxd") and "tests" not in path.relative_to(PACKAGE).parts:
            parts = path.relative_to(PACKAGE).with_suffix("").parts
            yield path, ".".join(("nncore", *(p for p in parts if p != "__init__")))


def violations(path, module):
    own = layer(module)
    for line, name in imports(path, module):
        target = layer(name)
        if own == "" or target == own or (own, target) in ALLOWED:
            continue
        if target not in LAYERS or LAYERS[target] > LAYERS[own]:
            yield f"{path.name}:{line}: {module} imports {name}"


def test_every_module_has_a_layer():
    found = {layer(m) for _, m in modules()} - {""}
    assert found - LAYERS.keys() == set()
    assert {"_core", "_ops", "_tensor", "nn", "optim"} <= found


def test_imports_go_down():
    seen = list(modules())
    assert len(seen) > 20
    assert sum(len(list(imports(p, m))) for p, m in seen) > 50
    assert [v for p, m in seen for v in violations(p, m)] == []
    used = {(layer(m), layer(n)) for p, m in seen for _, n in imports(p, m)}
    assert ALLOWED.keys() - used == set(), "an exception that nobody needs"


@pytest.mark.parametrize(
    "module, source",
    [
        ("nncore._ops.bad", "from nncore._tensor import Tensor"),
        ("nncore._ops.bad", "def f():\n    from nncore.nn import Module"),
        ("nncore._core.bad", "import nncore._ops.shape"),
        ("nncore.nn.bad", "from nncore import train"),
        ("nncore.optim.bad", "import nncore"),
        ("nncore._grad", "from nncore.optim.sgd import SGD"),
    ],
)
def test_violations_are_found(tmp_path, module, source):
    path = tmp_path / "bad.py"
    path.write_text(source)
    assert len(list(violations(path, module))) == 1


def test_violations_are_found_in_cython(tmp_path):
    path = tmp_path / "bad.pyx"
    path.write_text("from nncore._ops.shape cimport x\nfrom .tensor cimport TensorBase\nfrom . cimport runtime\n")
    assert len(list(violations(path, "nncore._core.bad"))) == 1


def test_kernels_are_called_from_operations_only():
    """Modules hold parameters and shapes; only init, optimizers and state loading reach the bindings."""
    found = {
        m for p, m in modules() for _, n in imports(p, m)
        if layer(m) in ("nn", "train", "cli") and n.startswith("nncore._core") and n.split(".")[-1] not in ("tensor",)
    }  # fmt: skip
    assert found <= {"nncore.nn.init", "nncore.nn.module", "nncore.nn.parameter"}


def c_files():
    if not SOURCE.is_dir():
        pytest.skip("no source checkout: the C sources are not installed")
    files = [p for p in sorted(SOURCE.rglob("*")) if p.suffix in (".c", ".h", ".inc", ".def")]
    assert len(files) > 10
    return files


def test_openmp_is_started_in_one_place():
    """Threads have one owner: csrc/threads.c."""
    users = [
        p.name for p in c_files() if re.search(r"omp\.h|#\s*pragma\s+omp|\bomp_\w+\(", p.read_text(encoding="utf-8"))
    ]
    assert users == ["threads.c"]


def test_kernels_allocate_nothing():
    """Memory comes from memory.c, scratch through the argument struct."""
    users = [
        p.name
        for p in c_files()
        if re.search(r"\b(malloc|calloc|realloc|aligned_alloc|free)\(", p.read_text(encoding="utf-8"))
    ]
    assert set(users) <= {"memory.c", "threads.c"}
    assert "memory.c" in users


def test_the_c_functions_are_declared_once():
    """runtime.pyx declares the functions of nncore.h; c.pxd has its structs; the other bindings go through them."""
    if not (PACKAGE / "_core" / "runtime.pyx").exists():
        pytest.skip("no source checkout: the Cython sources are not installed")
    found = {}
    for path, _ in modules():
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".py" and "nncore.h" in text:
            found[path.name] = re.findall(r"^    (?:const )?\w+ \**(nn_\w+)\(", text, re.MULTILINE)
    assert sorted(found) == ["c.pxd", "runtime.pyx"]
    assert found["c.pxd"] == []
    assert len(found["runtime.pyx"]) > 10


def test_arguments_can_be_recorded():
    """Two recordings are compared by their bytes: structs start as zeros. Writes are counted by touch, which it
    sees."""
    sources = {p.name: p.read_text(encoding="utf-8") for p, _ in modules() if p.suffix == ".pyx"}
    if not sources:
        pytest.skip("no source checkout: the Cython sources are not installed")
    structs = 0
    for name, text in sources.items():
        runs = "runtime.run" in text  # who runs no kernel has structs for the offsets of their fields alone
        for m in re.finditer(r"^ +cdef nn_\w+_args (\w+)\n(.*)", text, re.MULTILINE) if runs else ():
            assert m[2].strip() == f"memset(&{m[1]}, 0, sizeof({m[1]}))", f"{name}: {m[0]}"
            structs += 1
        assert not re.search(r"\.storage\.version *\+=", text), name
    assert structs > 20


def test_no_product_names_a_machine():
    """No paths of the machine it was written on."""
    for path, _ in modules():
        assert not re.search(r"/(home|root|work)/", path.read_text(encoding="utf-8")), path
