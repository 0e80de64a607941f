"""How long commands and jobs take before they begin, beside `python -c "import numpy"` in the same run.

usage: python benchmarks/startup.py [RUNS]

A job is what a script of the workflow imports at its top. The rounds take turns, so that another load on the machine
falls on all alike; the times are medians, in seconds and less an empty interpreter's in the column of ratios.
"""

import ast
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

CHECKOUT = Path(__file__).resolve().parents[1]
SLOW = ("altair", "jsonschema", "numba", "onnx", "onnxruntime", "pandas", "PIL", "requests", "rich", "scipy", "typer")
"""Libraries that take long to import: the last column says which of them came along."""
EMPTY, BASE = "python -c pass", 'python -c "import numpy"'


def imports_of(script: Path) -> str:
    """Return the imports at the top of a script."""
    body = ast.parse(script.read_text(encoding="utf-8")).body
    return "\n".join(ast.unparse(node) for node in body if isinstance(node, ast.Import | ast.ImportFrom))


def commands() -> dict[str, str]:
    """Return Python code by the name of what it starts."""
    cli = "import sys; from nvdla_quant.cli import main; sys.argv = ['nvdla-quant', {!r}]; main()"
    tops = {
        f"job {script.stem}": imports_of(script)
        for script in sorted((CHECKOUT / "scripts").glob("*.py"))
        if not script.stem.startswith("_")
    }
    return {
        EMPTY: "",
        BASE: "import numpy",
        **{f"nvdla-quant {option}": cli.format(option) for option in ("--version", "--help")},
        **tops,
    }


def seconds(code: str) -> float:
    """Run Python code in a process of its own."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def libraries(code: str) -> str:
    """Return the slow libraries that the code imports."""
    ask = f"import sys, atexit\natexit.register(lambda: print('\\n', *({SLOW!r} & sys.modules.keys())))\n{code}"
    ask = ask.replace(repr(SLOW), repr(set(SLOW)))
    done = subprocess.run([sys.executable, "-c", ask], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return " ".join(sorted(done.stdout.splitlines()[-1].split()))


def main() -> None:
    """Print a line for each command and job."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    started = commands()
    times: dict[str, list[float]] = {name: [] for name in started}
    for _ in range(runs):
        for name, code in started.items():
            times[name].append(seconds(code))
    found = {name: median(values) for name, values in times.items()}
    own = found[BASE] - found[EMPTY]
    print(f"{'':30} seconds  less numpy's  ratio  slow libraries")
    for name, value in found.items():
        ratio = (value - found[EMPTY]) / own
        print(f"{name:30} {value:7.3f} {value - found[BASE]:+13.3f} {ratio:6.1f}  {libraries(started[name])}".rstrip())


if __name__ == "__main__":
    main()
