"""The machine code of the GEMM micro-kernels: nothing that their innermost loop needs lies on the stack.

Compilers spill accumulators without a word, which costs up to half of the speed and changes no result.
"""

import platform
import re
import shutil
import subprocess

import pytest

from nncore._core import runtime

from . import shapes

PRODUCT = re.compile(r"v?(fn?m(add|sub)\d+|mul)p[sd]\s")
REGISTERS = {"baseline": "%xmm", "avx2": "%ymm", "avx512": "%zmm"}


def functions(listing):
    """[(name, [(address, instruction)])] of the micro-kernels in objdump's output."""
    found, code = [], None
    for line in listing.splitlines():
        if head := re.match(r"[0-9a-f]+ <(\w+)>:$", line):
            code = [] if head[1].startswith(("ukr_", "dots_", "row_")) else None
            if code is not None:
                found.append((head[1], code))
        elif code is not None and (body := re.match(r"\s*([0-9a-f]+):\s+(\S.*)", line)):
            code.append((int(body[1], 16), body[2]))
    return found


def inner_loops(code):
    """The innermost loops that multiply, as lists of instructions: the span of a backward jump with no other in it."""
    place = {address: i for i, (address, _) in enumerate(code)}
    spans = set()
    for i, (_, text) in enumerate(code):
        jump = re.match(r"j\w+\s+([0-9a-f]+)\b", text)
        to = place.get(int(jump[1], 16)) if jump else None
        if to is not None and to <= i:
            spans.add((to, i))
    innermost = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    loops = [[text for _, text in code[first : last + 1]] for first, last in sorted(innermost)]
    return [loop for loop in loops if any(PRODUCT.match(text) for text in loop)]


def on_the_stack(code, loop):
    """The instructions of a loop with a memory operand relative to the stack pointer, or to rbp where it is the frame
    pointer."""
    frame = any(re.match(r"mov\s+%rsp,%rbp", text) for _, text in code)
    base = r"\(%r[sb]p[,)]" if frame else r"\(%rsp[,)]"
    return [text for text in loop if re.search(base, text)]


@pytest.fixture(scope="module")
def kernels():
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("reads x86-64 machine code only")
    if shutil.which("objdump") is None:
        pytest.skip("objdump (binutils) is not installed")
    if not shapes.slack_is_visible():
        pytest.skip("a debug build is not optimized")
    listing = subprocess.run(["objdump", "-d", "--no-show-raw-insn", runtime.__file__], capture_output=True, text=True)
    assert listing.returncode == 0, listing.stderr
    found = functions(listing.stdout)
    if not found:
        pytest.skip("the library is stripped of its symbols")
    return found


@pytest.mark.parametrize("name", [name for name, _ in runtime.built_isas()])
@pytest.mark.parametrize("suffix", ["ps", "pd"])
def test_no_stack_access_in_the_k_loop(kernels, name, suffix):
    """Of every instance, for every instruction set that was built, whether or not this machine has it."""
    seen, spilled = [], {}
    for function, code in kernels:
        loops = inner_loops(code)
        assert loops, f"{function}: no loop was found"
        if not any(PRODUCT.match(t) and f"p{suffix[1]} " in t and REGISTERS[name] in t for t in loops[0]):
            continue
        seen.append(function)
        if function.startswith("dots_"):  # the loop along a line; the rest of the line is taken outside of it
            loops = [min(loops, key=len)]
        for loop in loops:
            if found := on_the_stack(code, loop):
                spilled[function] = found
    assert len(seen) >= shapes.MR, f"{name}, {suffix}: only {seen} were found"
    assert len(set(seen)) == len(seen)
    assert not spilled, f"{name}, {suffix}: the k-loop goes to the stack: {spilled}"


LISTING = """
0000000000001000 <ukr_6x4>:
    1000:	mov    %rsp,%rbp
    1003:	vmovaps 0x40(%rsp),%zmm9
    1008:	vbroadcastss (%rax,%rcx,1),%zmm0
    100e:	vfmadd231ps {operand},%zmm0,%zmm2
    1014:	jne    1008 <ukr_6x4+0x8>
    1016:	mov    0x8(%rsp),%rdx
    101b:	jne    1003 <ukr_6x4+0x3>
    101d:	ret
"""


@pytest.mark.parametrize("operand, bad", [("%zmm1", 0), ("(%rsi)", 0), ("-0x40(%rbp)", 1), ("0x80(%rsp,%rdi,8)", 1)])
def test_the_check_sees_spills(operand, bad):
    """In the inner loop only, whatever surrounds it."""
    [(function, code)] = functions(LISTING.format(operand=operand))
    [loop] = inner_loops(code)
    assert function == "ukr_6x4"
    assert len(loop) == 3
    assert len(on_the_stack(code, loop)) == bad
