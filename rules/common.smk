# What the rules are wired with; no rules here. What a configuration implies is in nvdla_quant.configuration.
import gc
import re
import shlex
import sys
from os import PathLike
from pathlib import Path

from snakemake.settings.types import DeploymentMethod
from snakemake.shell import shell

try:
    import nvdla_quant
except ModuleNotFoundError:
    sys.exit(
        "nvdla-quant: the package is not installed where Snakemake runs, which a module of another workflow needs too; "
        "pip install the checkout, or the repository that the module is taken from, at the same version"
    )

from nvdla_quant.configuration.artefacts import Artefacts
from nvdla_quant.configuration.parameters.job import Job
from nvdla_quant.configuration.parameters.names import ANY_NAME, alternatives, those
from nvdla_quant.configuration.load import load_configuration
from nvdla_quant.configuration.sources import model_files
from nvdla_quant.configuration.sweep import EQUALIZED
from nvdla_quant.errors import ConfigError
from nvdla_quant.jobs import provenance
from nvdla_quant.jobs.files import folder_of_one
from nvdla_quant.jobs.programs import bind_into_containers
from nvdla_quant.planning.memory import Memory

try:
    CONFIGURATION = load_configuration(config)
except ConfigError as error:
    sys.exit(str(error))  # The line says all; Snakemake would put its frames around it.

SETTINGS = CONFIGURATION.settings
SWEEP = Artefacts(CONFIGURATION, workflow.pathvars.apply("<results>"))
JOB = Job(CONFIGURATION, SWEEP)
MEMORY = Memory(JOB)

# A module that Snakemake reads from a repository has no checkout: its jobs take the package that is installed, out of a
# folder that holds nothing else, since an environment must not see what is installed beside it.
BASE = workflow.current_basedir
if isinstance(BASE, PathLike):
    CHECKOUT = Path(BASE).parent
else:
    CHECKOUT = folder_of_one(Path(nvdla_quant.__file__).parent, Path(".snakemake/nvdla-quant").absolute())
PACKAGE = CHECKOUT / "nvdla_quant"

if workflow.is_main_process and CONFIGURATION.notes:
    print(*CONFIGURATION.notes, sep="\n", file=sys.stderr)

# Planning makes so many objects that Python's collector goes over all modules again and again; those stay anyway.
gc.freeze()

if ":" in str(CHECKOUT):
    sys.exit(
        f"{CHECKOUT}: jobs find the package by PYTHONPATH, which cannot name a folder with a colon; move the checkout"
    )

# The one place where jobs learn where the package is: before each command, within its environment or container, which
# need not have it.
shell.prefix(
    f"set -euo pipefail; export PYTHONPATH={shlex.quote(str(CHECKOUT))}; ".replace("{", "{{").replace("}", "}}")
)

# Containers see the working directory by themselves, but not the checkout, nor files elsewhere.
if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:
    models = [Path(path) for model in SETTINGS["models"].values() for path in model_files(model)]
    specifications = map(Path, CONFIGURATION.specs.values())
    bind_into_containers([CHECKOUT, PACKAGE, Path(SWEEP.results), Path("downloads"), *models, *specifications])


# What a network is prepared to; to equalize it is a rule of its own.
FORMS = alternatives(name for name in CONFIGURATION.networks if name != EQUALIZED)


wildcard_constraints:
    engine=alternatives(CONFIGURATION.engines),
    model=alternatives(SETTINGS["models"]),
    dataset=alternatives(SETTINGS["datasets"]),
    calibrator=ANY_NAME,
    variant=ANY_NAME,
    target=alternatives(SETTINGS["targets"]),
    shard=alternatives(CONFIGURATION.shards),
    digest="[0-9a-f]{64}|unknown-[0-9a-f]{16}",
    file="[^/]+",
    path="(?s:.+)",
    table=alternatives(CONFIGURATION.tables),
    network=alternatives(CONFIGURATION.networks),


def code_of(rule_name):
    """Digest of a script and of every module of the package that it imports: editing one reruns its rule."""
    return provenance.source_digest(Path(workflow.source_path(f"../scripts/{rule_name}.py")), package=PACKAGE)


def digest_of(module):
    """The same of a program of the package."""
    return provenance.source_digest(module, package=PACKAGE)


def backend(name):
    """Section of a real tool; empty where the configuration has none."""
    return SETTINGS["backends"].get(name, {})


def variants_with(**choices):
    """Regular expression of the variants with these choices: the rules for one never match those of another."""
    chosen = (v for v in CONFIGURATION.variants.values() if all(getattr(v, key) == choices[key] for key in choices))
    return those([variant.name for variant in chosen], CONFIGURATION.variants)


def for_any(path):
    """The path of a rule with * for wildcards."""
    return re.sub(r"\{[^}]*\}", "*", str(path))


def benchmark_patterns(wildcards):
    """Benchmark files by rule."""
    return {rule.name: for_any(rule.benchmark) for rule in workflow.rules if rule.benchmark}


def run_logs(wildcards):
    """Logs of the jobs that run loadables on the emulator."""
    return for_any(rules.run_loadable.log[0])


def final_outputs(wildcards):
    """What nothing else is made from, and what was lost: it is made again, whatever was made from it is still there."""
    final = [SWEEP.manifest, SWEEP.page, *SWEEP.raw_dumps]
    if not Path(SWEEP.manifest).is_file():
        return final  # The manifest asks for every artefact; to ask twice would slow the plan of a large sweep.
    return [*final, *(path for path in (*SWEEP.exact, *SWEEP.processor_dependent) if not Path(path).exists())]
