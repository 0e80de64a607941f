# Score fp32 and every variant on the same images.
#
# Needs: reference/{shard}.npz, dumps/{shard}.npz.
# Makes: reference/accuracy.json, {target}/{variant}/accuracy.json.


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
        mem_mb=1000,
        runtime=10,
    params:
        subject=reference_subject_of,
        code=code_of("score_reference"),
    message:
        "Score {wildcards.model} on {wildcards.dataset} in fp32"
    script:
        "../scripts/score_reference.py"


rule score_variant:
    input:
        reference=collect("<case>/reference/{shard}.npz", shard=CONFIGURATION.shards, allow_missing=True),
        dumps=collect("<case>/{target}/{variant}/dumps/{shard}.npz", shard=CONFIGURATION.shards, allow_missing=True),
    output:
        accuracy="<case>/{target}/{variant}/accuracy.json",
    log:
        "<case_logs>/score_variant/{target}/{variant}.log",
    benchmark:
        "<case_benchmarks>/score_variant/{target}/{variant}.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        subject=subject_of,
        code=code_of("score_variant"),
    message:
        "Score {wildcards.model} on {wildcards.dataset}: {wildcards.target}, {wildcards.variant}"
    script:
        "../scripts/score_variant.py"
