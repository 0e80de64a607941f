# Score fp32 and every variant on the same images, compare them image by image, hold every loadable to the float network.
#
# Needs: reference/{shard}.npz, dumps/{shard}.npz; loadable.nvdla, compile.json, network/{network}/, the fixed table (int8).
# Makes: reference/accuracy.json; quantized/accuracy.json of a quantized file as onnxruntime runs it; {target}/{variant}/accuracy.json, comparison.json with fp32, layers.tsv, verdict.json;
#        comparisons.json between the variants of a case.


rule score_reference:
    input:
        reference=collect("<case>/reference/{shard}.npz", shard=CONFIGURATION.shards, allow_missing=True),
    output:
        accuracy="<case>/reference/accuracy.json",
    log:
        "<case_logs>/score_reference.log",
    benchmark:
        "<case_benchmarks>/score_reference.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("score_reference"),
        runtime=10,
    params:
        subject=JOB.case,
        code=code_of("score_reference"),
    message:
        "Score {wildcards.model} on {wildcards.dataset} in fp32"
    script:
        "../scripts/score_reference.py"


rule score_quantized:
    input:
        scores=collect("<case>/quantized/{shard}.npz", shard=CONFIGURATION.shards, allow_missing=True),
        reference=collect("<case>/reference/{shard}.npz", shard=CONFIGURATION.shards, allow_missing=True),
    output:
        accuracy="<case>/quantized/accuracy.json",
    log:
        "<case_logs>/score_quantized.log",
    benchmark:
        "<case_benchmarks>/score_quantized.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("score_quantized"),
        runtime=10,
    params:
        subject=JOB.quantized_subject,
        code=code_of("score_quantized"),
    message:
        "Score {wildcards.model} on {wildcards.dataset} in onnxruntime's int8"
    script:
        "../scripts/score_quantized.py"


rule score_variant:
    input:
        reference=collect("<case>/reference/{shard}.npz", shard=CONFIGURATION.shards, allow_missing=True),
        dumps=collect("<case>/{target}/{variant}/dumps/{shard}.npz", shard=CONFIGURATION.shards, allow_missing=True),
        network=JOB.prepared_structure,
        table=JOB.table,
    output:
        accuracy="<case>/{target}/{variant}/accuracy.json",
        comparison="<case>/{target}/{variant}/comparison.json",
    log:
        "<case_logs>/score_variant/{target}/{variant}.log",
    benchmark:
        "<case_benchmarks>/score_variant/{target}/{variant}.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("score_variant"),
        runtime=10,
    params:
        subject=JOB.subject,
        pair=JOB.pair_with_fp32,
        code=code_of("score_variant"),
    message:
        "Score {wildcards.model} on {wildcards.dataset}: {wildcards.target}, {wildcards.variant}"
    script:
        "../scripts/score_variant.py"


rule verify_loadable:
    input:
        loadable="<case>/{target}/{variant}/loadable.nvdla",
        # What this compiler says that the operations stand for; NVIDIA's says nothing.
        report=branch(JOB.is_compiled_here, then="<case>/{target}/{variant}/compile.json", otherwise=[]),
        network=JOB.prepared,
        table=JOB.table,
        weights=JOB.weight_steps,
        images=f"<case>/images/test-{CONFIGURATION.shards[0]}.npz",
        specification=JOB.specification,
    output:
        verdict="<case>/{target}/{variant}/verdict.json",
        layers="<case>/{target}/{variant}/layers.tsv",
    log:
        "<case_logs>/verify_loadable/{target}/{variant}.log",
    benchmark:
        "<case_benchmarks>/verify_loadable/{target}/{variant}.tsv"
    # Before the runs: a wrong loadable shows in seconds, its runs may take hours.
    priority: 1
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("verify_loadable"),
        runtime=30,
    params:
        target=JOB.target,
        preprocessing=JOB.preprocessing,
        raw_pixels=JOB.is_fed_raw_pixels,
        images=SETTINGS["verify"]["images"],
        subject=JOB.verified_subject,
        code=code_of("verify_loadable"),
    message:
        "Verify {wildcards.model} on {wildcards.target}, {wildcards.variant}"
    script:
        "../scripts/verify_loadable.py"


rule compare_case:
    input:
        reference=collect("<case>/reference/{shard}.npz", shard=CONFIGURATION.shards, allow_missing=True),
        dumps=JOB.dumps,
        comparisons=JOB.comparisons,
    output:
        comparisons="<case>/comparisons.json",
    log:
        "<case_logs>/compare_case.log",
    benchmark:
        "<case_benchmarks>/compare_case.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("compare_case"),
        runtime=60,
    params:
        case=JOB.case,
        runs=JOB.runs,
        groups=JOB.groups,
        pairs=JOB.pairs,
        code=code_of("compare_case"),
    message:
        "Compare the variants of {wildcards.model} on {wildcards.dataset}"
    script:
        "../scripts/compare_case.py"
