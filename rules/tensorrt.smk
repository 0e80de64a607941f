# TensorRT: the calibration caches of calibrators whose method is one of its own, and its accuracy beside NVDLA's.
#
# Needs: the model (network/fold-equalize/ for calibration/{calibrator}/fold-equalize/), images/calibration-{calibrator}.npz, images/test-{shard}.npz; a GPU.
# Makes: calibration/{calibrator}/calibration.cache; tensorrt/{engine}.npz and .json, engine fp32, fp16, int8-{calibrator}.
#
# Two of these run where TensorRT is: as a program, since that may be an interpreter that Snakemake's scripts cannot use.


rule prepare_tensorrt:
    input:
        network=JOB.network,
    output:
        job="<case>/tensorrt/job.json",
        model="<case>/tensorrt/model.onnx",
    log:
        "<case_logs>/prepare_tensorrt.log",
    benchmark:
        "<case_benchmarks>/prepare_tensorrt.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("prepare_tensorrt"),
        runtime=10,
    params:
        preprocessing=JOB.preprocessing,
        code=code_of("prepare_tensorrt"),
    message:
        "Lay {wildcards.model} ready for TensorRT"
    script:
        "../scripts/prepare_tensorrt.py"


use rule prepare_tensorrt as prepare_equalized_tensorrt with:
    input:
        network=JOB.equalized,
    output:
        job="<case>/tensorrt/fold-equalize/job.json",
        model="<case>/tensorrt/fold-equalize/model.onnx",
    log:
        "<case_logs>/prepare_equalized_tensorrt.log",
    benchmark:
        "<case_benchmarks>/prepare_equalized_tensorrt.tsv"
    message:
        "Lay {wildcards.model}, equalized, ready for TensorRT"


rule calibrate_with_tensorrt:
    input:
        job="<case>/tensorrt/job.json",
        model="<case>/tensorrt/model.onnx",
        network=JOB.caffe_files,
        images="<case>/images/calibration-{calibrator}.npz",
    output:
        cache="<case>/calibration/{calibrator}/calibration.cache",
    log:
        "<case_logs>/calibrate_with_tensorrt/{calibrator}.log",
    benchmark:
        "<case_benchmarks>/calibrate_with_tensorrt/{calibrator}.tsv"
    wildcard_constraints:
        calibrator=alternatives(CONFIGURATION.tensorrt_calibrators),
    conda:
        "../envs/tensorrt-8.5.yaml"
    container:
        "docker://nvcr.io/nvidia/tensorrt:20.12-py3"
    threads: 2
    resources:
        mem_mb=MEMORY.of("calibrate_with_tensorrt"),
        runtime=240,
        gpu=1,
    params:
        python=backend("tensorrt").get("python", "python"),
        options=JOB.tensorrt_options,
        code=digest_of("nvdla_quant.calibration.tensorrt"),
    message:
        "Calibrate {wildcards.model} on {wildcards.dataset}, {wildcards.calibrator}, with TensorRT"
    shell:
        "{params.python:q} -m nvdla_quant.calibration.tensorrt calibrate --job={input.job:q}"
        " --calibration={input.images:q} {params.options:q} --cache={output.cache:q} > {log:q} 2>&1"


use rule calibrate_with_tensorrt as calibrate_equalized_with_tensorrt with:
    input:
        job="<case>/tensorrt/fold-equalize/job.json",
        model="<case>/tensorrt/fold-equalize/model.onnx",
        network=JOB.equalized_caffe_files,
        images="<case>/images/calibration-{calibrator}.npz",
    output:
        cache="<case>/calibration/{calibrator}/fold-equalize/calibration.cache",
    log:
        "<case_logs>/calibrate_equalized_with_tensorrt/{calibrator}.log",
    benchmark:
        "<case_benchmarks>/calibrate_equalized_with_tensorrt/{calibrator}.tsv"
    message:
        "Calibrate {wildcards.model}, equalized, on {wildcards.dataset}, {wildcards.calibrator}, with TensorRT"


rule run_tensorrt:
    input:
        job="<case>/tensorrt/job.json",
        model="<case>/tensorrt/model.onnx",
        network=JOB.caffe_files,
        images=collect("<case>/images/test-{shard}.npz", shard=CONFIGURATION.shards, allow_missing=True),
        cache=JOB.engine_cache,
    output:
        scores="<case>/tensorrt/{engine}.npz",
    log:
        "<case_logs>/run_tensorrt/{engine}.log",
    benchmark:
        "<case_benchmarks>/run_tensorrt/{engine}.tsv"
    conda:
        "../envs/tensorrt-8.5.yaml"
    container:
        "docker://nvcr.io/nvidia/tensorrt:20.12-py3"
    threads: 2
    resources:
        mem_mb=MEMORY.of("run_tensorrt"),
        runtime=240,
        gpu=1,
    params:
        python=backend("tensorrt").get("python", "python"),
        options=JOB.engine_options,
        code=digest_of("nvdla_quant.calibration.tensorrt"),
    message:
        "Run {wildcards.model} on {wildcards.dataset} with TensorRT, {wildcards.engine}"
    shell:
        "{params.python:q} -m nvdla_quant.calibration.tensorrt run --job={input.job:q}"
        " {params.options:q} --scores={output.scores:q} --images {input.images:q} > {log:q} 2>&1"


rule score_tensorrt:
    input:
        scores="<case>/tensorrt/{engine}.npz",
        reference=collect("<case>/reference/{shard}.npz", shard=CONFIGURATION.shards, allow_missing=True),
    output:
        accuracy="<case>/tensorrt/{engine}.json",
    log:
        "<case_logs>/score_tensorrt/{engine}.log",
    benchmark:
        "<case_benchmarks>/score_tensorrt/{engine}.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("score_tensorrt"),
        runtime=10,
    params:
        subject=JOB.engine_subject,
        code=code_of("score_tensorrt"),
    message:
        "Score {wildcards.model} on {wildcards.dataset} in TensorRT, {wildcards.engine}"
    script:
        "../scripts/score_tensorrt.py"
