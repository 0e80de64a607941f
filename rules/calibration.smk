# Find the scale of each tensor, on the CPU, or take those that a quantized ONNX model has in it.
#
# Needs: the model, images/calibration-{calibrator}.npz; of a quantized model nothing but itself.
# Makes: calibration/{calibrator}/calibration.cache in TensorRT's text format; its header says who wrote it.
#        calibration/{calibrator}/fold-equalize/calibration.cache likewise, of network/fold-equalize/.
#        Of a quantized model ranges.tsv beside it: where each scale is from, and which ranges were not symmetric.


rule calibrate:
    input:
        network=JOB.network,
        images="<case>/images/calibration-{calibrator}.npz",
    output:
        cache="<case>/calibration/{calibrator}/calibration.cache",
    log:
        "<case_logs>/calibrate/{calibrator}.log",
    benchmark:
        "<case_benchmarks>/calibrate/{calibrator}.tsv"
    wildcard_constraints:
        calibrator=those(
            set(SETTINGS["calibrators"]) - {*CONFIGURATION.tensorrt_calibrators, *CONFIGURATION.qdq_calibrators},
            SETTINGS["calibrators"],
        ),
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("calibrate"),
        runtime=60,
    params:
        preprocessing=JOB.preprocessing,
        calibrator=JOB.method,
        code=code_of("calibrate"),
    message:
        "Calibrate {wildcards.model} on {wildcards.dataset}, {wildcards.calibrator}"
    script:
        "../scripts/calibrate.py"


use rule calibrate as calibrate_equalized with:
    input:
        network=JOB.equalized,
        images="<case>/images/calibration-{calibrator}.npz",
    output:
        cache="<case>/calibration/{calibrator}/fold-equalize/calibration.cache",
    log:
        "<case_logs>/calibrate_equalized/{calibrator}.log",
    benchmark:
        "<case_benchmarks>/calibrate_equalized/{calibrator}.tsv"
    message:
        "Calibrate {wildcards.model}, equalized, on {wildcards.dataset}, {wildcards.calibrator}"


rule take_scales:
    input:
        model=JOB.model_files,
    output:
        cache="<case>/calibration/{calibrator}/calibration.cache",
        ranges="<case>/calibration/{calibrator}/ranges.tsv",
    log:
        "<case_logs>/take_scales/{calibrator}.log",
    benchmark:
        "<case_benchmarks>/take_scales/{calibrator}.tsv"
    wildcard_constraints:
        calibrator=alternatives(CONFIGURATION.qdq_calibrators),
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("take_scales"),
        runtime=10,
    params:
        input_shape=JOB.input_shape,
        cut_at=JOB.cut_at,
        calibrator=JOB.method,
        code=code_of("take_scales"),
    message:
        "Take the scales of {wildcards.model}, {wildcards.calibrator}"
    script:
        "../scripts/take_scales.py"
