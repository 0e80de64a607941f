# The fp32 network, which every variant is compared with, and a quantized file as onnxruntime runs it.
#
# Needs: the model, images/test-{shard}.npz.
# Makes: reference/{shard}.npz: scores, and the tensor before the final Softmax, or all outputs where no label says what is
#        right; quantized/{shard}.npz: scores.


rule compute_reference:
    input:
        network=JOB.network,
        images="<case>/images/test-{shard}.npz",
    output:
        scores="<case>/reference/{shard}.npz",
    log:
        "<case_logs>/compute_reference/{shard}.log",
    benchmark:
        "<case_benchmarks>/compute_reference/{shard}.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("compute_reference"),
        runtime=60,
    params:
        preprocessing=JOB.preprocessing,
        metric=JOB.metric,
        code=code_of("compute_reference"),
    message:
        "Run {wildcards.model} in fp32 on {wildcards.dataset}, shard {wildcards.shard}"
    script:
        "../scripts/compute_reference.py"


rule run_quantized:
    input:
        model=JOB.model_files,
        network=JOB.network,
        images="<case>/images/test-{shard}.npz",
    output:
        scores="<case>/quantized/{shard}.npz",
    log:
        "<case_logs>/run_quantized/{shard}.log",
    benchmark:
        "<case_benchmarks>/run_quantized/{shard}.tsv"
    wildcard_constraints:
        model=alternatives(CONFIGURATION.models(onnx=True)),
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("run_quantized"),
        runtime=60,
    params:
        preprocessing=JOB.preprocessing,
        cut_at=JOB.cut_at,
        code=code_of("run_quantized"),
    message:
        "Run {wildcards.model} in onnxruntime's int8 on {wildcards.dataset}, shard {wildcards.shard}"
    script:
        "../scripts/run_quantized.py"
