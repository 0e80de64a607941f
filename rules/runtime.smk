# Run loadables on test images.
#
# Needs: loadable.nvdla, images/test-{shard}.npz, the fixed table (int8; for the scale of the input).
# Makes: dumps/{shard}.npz, in the device's domain; dumps/{shard}.dimg/ as nvdla_runtime writes it, on request.


rule run_loadable:
    input:
        loadable="<case>/{target}/{variant}/loadable.nvdla",
        images="<case>/images/test-{shard}.npz",
        table=JOB.table,
        specification=JOB.specification,
    output:
        dumps="<case>/{target}/{variant}/dumps/{shard}.npz",
    log:
        "<case_logs>/run_loadable/{target}/{variant}/{shard}.log",
    benchmark:
        "<case_benchmarks>/run_loadable/{target}/{variant}/{shard}.tsv"
    wildcard_constraints:
        variant=variants_with(runtime="emulator"),
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("run_loadable"),
        runtime=240,
    params:
        target=JOB.target,
        preprocessing=JOB.preprocessing,
        feeding=JOB.feeding,
        quantized=JOB.is_quantized_here,
        emulator=SETTINGS["emulator"],
        code=code_of("run_loadable"),
    message:
        "Run {wildcards.model} on {wildcards.target}, {wildcards.variant}, shard {wildcards.shard}"
    script:
        "../scripts/run_loadable.py"


rule run_on_device:
    input:
        loadable="<case>/{target}/{variant}/loadable.nvdla",
        images="<case>/images/test-{shard}.npz",
        table=JOB.table,
        specification=JOB.specification,
    output:
        dumps="<case>/{target}/{variant}/dumps/{shard}.npz",
    log:
        "<case_logs>/run_on_device/{target}/{variant}/{shard}.log",
    benchmark:
        "<case_benchmarks>/run_on_device/{target}/{variant}/{shard}.tsv"
    wildcard_constraints:
        variant=variants_with(runtime="nvdla_runtime"),
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("run_on_device"),
        runtime=1440,
        nvdla_device=1,
    params:
        target=JOB.target,
        preprocessing=JOB.preprocessing,
        feeding=JOB.feeding,
        quantized=JOB.is_quantized_here,
        backend=backend("nvdla_runtime"),
        code=code_of("run_on_device"),
    message:
        "Run {wildcards.model} on {wildcards.target}, {wildcards.variant}, shard {wildcards.shard}, with nvdla_runtime"
    script:
        "../scripts/run_on_device.py"


rule write_raw_dumps:
    input:
        dumps="<case>/{target}/{variant}/dumps/{shard}.npz",
        specification=JOB.specification,
    output:
        folder=directory("<case>/{target}/{variant}/dumps/{shard}.dimg"),
    log:
        "<case_logs>/write_raw_dumps/{target}/{variant}/{shard}.log",
    benchmark:
        "<case_benchmarks>/write_raw_dumps/{target}/{variant}/{shard}.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("write_raw_dumps"),
        runtime=20,
    params:
        target=JOB.target,
        raw_dumps=SETTINGS["raw_dumps"],
        code=code_of("write_raw_dumps"),
    message:
        "Write dumps as nvdla_runtime does: {wildcards.target}, {wildcards.variant}, shard {wildcards.shard}"
    script:
        "../scripts/write_raw_dumps.py"
