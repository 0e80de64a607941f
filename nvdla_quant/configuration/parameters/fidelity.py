"""What the jobs of a case are given that is measured by fp32's outputs, or by a command."""

from nvdla_quant.configuration.parameters.lookup import Lookup, Record
from nvdla_quant.configuration.parameters.names import Wildcards
from nvdla_quant.configuration.sources import files_in


class Fidelity(Lookup):
    """Lookups for the rules that measure without labels."""

    def metric(self, wildcards: Wildcards) -> str:
        """Return what the case is measured by."""
        return self._case(wildcards).metric.kind

    def task(self, wildcards: Wildcards) -> Record:
        """Return what counts in the case."""
        metric = self._case(wildcards).metric
        return {"argmax": metric.argmax, "peak": metric.peak, "lower_is_better": metric.better == "lower"}

    def command(self, wildcards: Wildcards) -> list[str]:
        """Return the command that gives each image a number."""
        return list(self._case(wildcards).metric.command)

    def command_files(self, wildcards: Wildcards) -> list[str]:
        """Return the files that it names."""
        return files_in(self._case(wildcards).metric.command)

    def numbers(self, wildcards: Wildcards) -> list[str]:
        """Return what the command says of a run and of fp32; nothing without one."""
        folder = self._run_folder(wildcards)
        return [f"{folder}/numbers.npz", *self.reference_numbers(wildcards)] if self.command(wildcards) else []

    def reference_numbers(self, wildcards: Wildcards) -> list[str]:
        """Return what the command says of fp32; nothing without one."""
        return [f"{self._folder(wildcards)}/reference/numbers.npz"] if self.command(wildcards) else []

    def fidelities(self, wildcards: Wildcards) -> list[str]:
        """Return the fidelity of every run of a case."""
        return self._of_runs(wildcards, "fidelity.json")

    def image_errors(self, wildcards: Wildcards) -> list[str]:
        """Return the errors of each image of every run of a case."""
        return self._of_runs(wildcards, "fidelity.npz")

    def _of_runs(self, wildcards: Wildcards, name: str) -> list[str]:
        runs, folder = self.configuration.runs_of(self._case(wildcards)), self._folder(wildcards)
        return [f"{folder}/{run.target}/{run.variant.name}/{name}" for run in runs]
