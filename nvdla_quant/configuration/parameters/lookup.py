"""The records that the wildcards of a path name, and the folders that hold what is made of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nvdla_quant.configuration.artefacts import Artefacts
from nvdla_quant.configuration.parameters.names import Wildcards, known
from nvdla_quant.configuration.records import Case, Configuration, Variant

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Lookup:
    """A configuration and the files that it implies, to be looked up by the values of wildcards."""

    configuration: Configuration
    artefacts: Artefacts

    def _folder(self, wildcards: Wildcards) -> str:
        return f"{self.artefacts.results}/{wildcards.model}/{wildcards.dataset}"

    def _run_folder(self, wildcards: Wildcards) -> str:
        return f"{self._folder(wildcards)}/{wildcards.target}/{wildcards.variant}"

    def _name(self, wildcards: Wildcards) -> str:
        return known("model", wildcards.model, self.configuration.settings["models"])

    def _model(self, wildcards: Wildcards) -> Record:
        record: Record = self.configuration.settings["models"][self._name(wildcards)]
        return record

    @cached_property
    def _cases(self) -> Mapping[str, Case]:
        return {f"{case.model}/{case.dataset}": case for case in self.configuration.cases}

    def _case(self, wildcards: Wildcards) -> Case:
        """Return the case as the configuration has it, with its overrides."""
        return self._cases[known("case", f"{wildcards.model}/{wildcards.dataset}", self._cases)]

    def dataset(self, wildcards: Wildcards) -> Record:
        """Return the data set, with what the case sets otherwise."""
        return self.configuration.dataset(self._case(wildcards))

    def _variant(self, wildcards: Wildcards) -> Variant:
        variants = self.configuration.variants
        return variants[known("variant", wildcards.variant, variants)]
