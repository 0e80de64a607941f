"""Stands in for conda: an environment has what its file lists, of the versions that the tests run with.

`FAKE_CONDA` is the root of the checkout of the tests.
"""

import json
import os
import site
import sys
from pathlib import Path

sys.path.append(os.environ["FAKE_CONDA"])
site.main()
import yaml  # noqa: E402

from tests.fakes import bare_interpreter, fake_gpu  # noqa: E402

ON_PYPI = {"python-flatbuffers": "flatbuffers"}
home = Path(__file__).parents[1]
match sys.argv[1:]:
    case ["--version"]:
        print("conda 24.9.1")
    case ["info", "--json"]:
        print(json.dumps({"conda_prefix": str(home), "platform": "linux-64"}))
    case ["config", "--get", "channel_priority", "--json"]:
        print(json.dumps({"get": {"channel_priority": "strict"}}))
    case ["clean", "-y", "--tarballs"]:
        pass
    case ["env", "create", "--quiet", "--no-default-packages", "--file", file, "--prefix", prefix]:
        listed = yaml.safe_load(Path(file).read_text())["dependencies"]
        pins = [item.split(" =") for item in listed if isinstance(item, str)]
        stand_ins = fake_gpu() if {"pip": ["tensorrt==8.5.3.1"]} in listed else []
        elsewhere = {"python", "pip", *(path.stem for path in stand_ins)}
        bare_interpreter(
            Path(prefix), [ON_PYPI.get(name, name) for name, _ in pins if name not in elsewhere], *stand_ins
        )
    case other:
        sys.exit(f"fake conda: {other}")
