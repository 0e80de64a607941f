# Score fp32 and every variant on the same images, compare them image by image, hold every loadable to the float network.
#
# Needs: reference/{shard}.npz, dumps/{shard}.npz; loadable.nvdla, network/{network}/, the fixed table (int8).
# Makes: reference/accuracy.json; {target}/{variant}/accuracy.json, comparison.json with fp32, layers.tsv, verdict.json;
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
        prototxt=prepared_prototxt_of,
        table=table_of,
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
        mem_mb=1000,
        runtime=10,
    params:
        subject=subject_of,
        pair=pair_with_fp32_of,
        code=code_of("score_variant"),
    message:
        "Score {wildcards.model} on {wildcards.dataset}: {wildcards.target}, {wildcards.variant}"
    script:
        "../scripts/score_variant.py"


rule verify_loadable:
    input:
        loadable="<case>/{target}/{variant}/loadable.nvdla",
        prototxt=prepared_prototxt_of,
        caffemodel=prepared_caffemodel_of,
        table=table_of,
        images=f"<case>/images/test-{CONFIGURATION.shards[0]}.npz",
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
        mem_mb=1500,
        runtime=30,
    params:
        target="{target}",
        preprocessing=preprocessing_of,
        raw_pixels=is_fed_raw_pixels,
        images=SETTINGS["verify"]["images"],
        subject=verified_subject_of,
        code=code_of("verify_loadable"),
    message:
        "Verify {wildcards.model} on {wildcards.target}, {wildcards.variant}"
    script:
        "../scripts/verify_loadable.py"


rule compare_case:
    input:
        reference=collect("<case>/reference/{shard}.npz", shard=CONFIGURATION.shards, allow_missing=True),
        dumps=dumps_of_case,
        comparisons=comparisons_of_case,
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
        mem_mb=2000,
        runtime=60,
    params:
        runs=runs_of_case,
        groups=groups_of_case,
        modes=mode_pairs_of_case,
        code=code_of("compare_case"),
    message:
        "Compare the variants of {wildcards.model} on {wildcards.dataset}"
    script:
        "../scripts/compare_case.py"
