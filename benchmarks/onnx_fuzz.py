"""Read many mutations of three ONNX files: ``python benchmarks/onnx_fuzz.py [COUNT] [SEED]``, 100,000 by default.

Prints how they ended, and stops at the first that is neither read nor refused by one line. The file stays where the
error says.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.fuzz_onnx import fuzz, models, peak_memory


def main() -> None:
    """Run."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    folder = Path(tempfile.mkdtemp(prefix="onnx-fuzz-"))
    each = -(-count // len(models()))
    for end, number in fuzz(folder, seed, each).most_common():
        print(f"{number:>8} {end}")
    print(f"most memory: {peak_memory() / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
