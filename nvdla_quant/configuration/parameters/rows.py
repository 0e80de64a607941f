"""What the rows of the report say before any number."""

from nvdla_quant.configuration.parameters.lookup import Lookup, Record
from nvdla_quant.configuration.parameters.names import Wildcards
from nvdla_quant.configuration.records import METHODS


class Rows(Lookup):
    """Columns that name a row, by the values of the wildcards."""

    def case(self, wildcards: Wildcards) -> Record:
        """Return what the rows of a case share, and all that its fp32 row says before any number."""
        return {"model": wildcards.model, "dataset": wildcards.dataset}

    def subject(self, wildcards: Wildcards) -> Record:
        """Return what the row of a variant says before any number."""
        variant = self._variant(wildcards)
        calibrated = variant.calibrator is not None
        return {
            "model": wildcards.model,
            "dataset": wildcards.dataset,
            "target": wildcards.target,
            "variant": variant.name,
            "precision": variant.precision,
            "mode": variant.mode,
            "calibrator": variant.calibrator,
            "preparation": variant.table.preparation,
            "feeding": variant.table.feeding if calibrated else None,
            "unified_scales": variant.table.unify_scales if calibrated else None,
            **{key: getattr(variant, key) if calibrated else None for key in METHODS},
            "calibrate_backend": self._calibrate_backend(variant.calibrator),
            "compile_backend": variant.compiler,
            "run_backend": variant.runtime,
        }

    def engine_subject(self, wildcards: Wildcards) -> Record:
        """Return what the row of a TensorRT engine says before any number; it has no target, as fp32 has none."""
        calibrator = engine_calibrator(wildcards)
        return {
            "model": wildcards.model,
            "dataset": wildcards.dataset,
            "target": None,
            "variant": f"tensorrt-{wildcards.engine}",
            "precision": wildcards.engine if calibrator is None else "int8",
            "mode": None,
            "calibrator": calibrator,
            "preparation": None,
            "feeding": None,
            "unified_scales": None,
            **dict.fromkeys(METHODS),
            "calibrate_backend": "tensorrt" if calibrator else None,
            "compile_backend": "tensorrt",
            "run_backend": "tensorrt",
        }

    def quantized_subject(self, wildcards: Wildcards) -> Record:
        """Return what the row of a quantized file says before any number, as onnxruntime runs it."""
        subject = dict.fromkeys(("target", "mode", "calibrator", "preparation", "feeding", "unified_scales"))
        return {
            **subject,
            **dict.fromkeys(METHODS),
            "model": wildcards.model,
            "dataset": wildcards.dataset,
            "variant": "onnxruntime-int8",
            "precision": "int8",
            "calibrate_backend": None,
            "compile_backend": None,
            "run_backend": "onnxruntime",
        }

    def verified_subject(self, wildcards: Wildcards) -> Record:
        """Return which row of the summary a verdict belongs to."""
        names = {"model": wildcards.model, "dataset": wildcards.dataset, "target": wildcards.target}
        return {**names, "variant": self._variant(wildcards).name}

    def pair_with_fp32(self, wildcards: Wildcards) -> Record:
        """Return what a comparison with fp32 says before any number."""
        names = {"model": wildcards.model, "dataset": wildcards.dataset, "target": wildcards.target}
        return {**names, "variant": wildcards.variant, "baseline": "fp32", "kind": "fp32"}

    def _calibrate_backend(self, calibrator: str | None) -> str | None:
        if calibrator is None:
            return None
        if calibrator in self.configuration.qdq_calibrators:
            return "the model's own scales"
        return "tensorrt" if calibrator in self.configuration.tensorrt_calibrators else "cpu"


def engine_calibrator(wildcards: Wildcards) -> str | None:
    """Return the name of the calibrator of an int8 engine; None for the others."""
    return wildcards.engine.partition("-")[2] or None
