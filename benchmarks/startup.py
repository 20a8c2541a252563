"""What `import nncore` costs beyond `import numpy`: median of 20 fresh interpreters each, taking turns."""

import statistics
import subprocess
import sys
import time


def seconds(code):
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def main():
    times = {"import numpy": [], "import nncore": []}
    for code in times:
        seconds(code)
    for _ in range(20):
        for code, t in times.items():
            t.append(seconds(code))
    numpy, ours = (1e3 * statistics.median(t) for t in times.values())
    print(f"import numpy {numpy:.1f} ms, import nncore {ours:.1f} ms: {ours - numpy:.1f} ms more (medians of 20)")


if __name__ == "__main__":
    main()
