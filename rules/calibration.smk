# Find the scale of each tensor, on the CPU.
#
# Needs: the model, images/calibration-{calibrator}.npz.
# Makes: calibration/{calibrator}/calibration.cache in TensorRT's text format; its header says who wrote it.


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
            set(SETTINGS["calibrators"]) - set(CONFIGURATION.tensorrt_calibrators), SETTINGS["calibrators"]
        ),
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        preprocessing=JOB.preprocessing,
        calibrator=JOB.method,
        code=code_of("calibrate"),
    message:
        "Calibrate {wildcards.model} on {wildcards.dataset}, {wildcards.calibrator}"
    script:
        "../scripts/calibrate.py"
