# Choose images and bring them to the network's geometry.
#
# Needs: the configuration's data set files and the model (for the size of its input).
# Makes: images/calibration-{calibrator}.npz, images/test-{shard}.npz: uint8 pixels, labels if any, and what was chosen.


rule select_calibration_images:
    input:
        files=JOB.calibration_files,
        network=JOB.structure,
    output:
        images="<case>/images/calibration-{calibrator}.npz",
    log:
        "<case_logs>/select_calibration_images/{calibrator}.log",
    benchmark:
        "<case_benchmarks>/select_calibration_images/{calibrator}.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("select_calibration_images"),
        runtime=30,
    params:
        dataset=JOB.calibration_dataset,
        preprocessing=JOB.preprocessing,
        calibrator=JOB.calibrator,
        code=code_of("select_calibration_images"),
    message:
        "Choose the calibration images of {wildcards.dataset} for {wildcards.model}, {wildcards.calibrator}"
    script:
        "../scripts/select_calibration_images.py"


rule select_test_images:
    input:
        files=JOB.test_files,
        network=JOB.structure,
    output:
        images="<case>/images/test-{shard}.npz",
    log:
        "<case_logs>/select_test_images/{shard}.log",
    benchmark:
        "<case_benchmarks>/select_test_images/{shard}.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("select_test_images"),
        runtime=60,
    params:
        dataset=JOB.test_dataset,
        preprocessing=JOB.preprocessing,
        part=JOB.part,
        metric=JOB.metric,
        code=code_of("select_test_images"),
    message:
        "Prepare the test images of {wildcards.dataset} for {wildcards.model}, shard {wildcards.shard}"
    script:
        "../scripts/select_test_images.py"
