# Better scales and weights than the table and the nearest step, for the variants that ask for them.
#
# Needs: network/{network}/, the fixed table, images/calibration-{calibrator}.npz.
# Makes: {target}/{variant}/table.searched.json in the place of the fixed table, weights.searched.npz, search.tsv;
#        {target}/{variant}/weights.steps.npz, the steps that the compiler stores, refinement.tsv.


rule search_scales:
    input:
        network=JOB.prepared,
        table=JOB.fixed_table,
        images=JOB.calibration_images,
        specification=JOB.specification,
    output:
        table="<case>/{target}/{variant}/table.searched.json",
        weights="<case>/{target}/{variant}/weights.searched.npz",
        report="<case>/{target}/{variant}/search.tsv",
    log:
        "<case_logs>/search_scales/{target}/{variant}.log",
    benchmark:
        "<case_benchmarks>/search_scales/{target}/{variant}.tsv"
    wildcard_constraints:
        variant=variants_with(is_searched=True),
    conda:
        "../envs/quantization.yaml"
    threads: 2
    resources:
        mem_mb=MEMORY.of("search_scales"),
        runtime=60,
    params:
        target=JOB.target,
        options=JOB.search_options,
        preprocessing=JOB.preprocessing,
        feeding=JOB.feeding,
        code=code_of("search_scales"),
    message:
        "Search the scales of {wildcards.model} for {wildcards.target}, {wildcards.variant}"
    script:
        "../scripts/search_scales.py"


rule refine_weights:
    input:
        network=JOB.prepared,
        table=JOB.table,
        searched=JOB.searched_weights,
        images=JOB.calibration_images,
        specification=JOB.specification,
    output:
        weights="<case>/{target}/{variant}/weights.steps.npz",
        changes="<case>/{target}/{variant}/refinement.tsv",
    log:
        "<case_logs>/refine_weights/{target}/{variant}.log",
    benchmark:
        "<case_benchmarks>/refine_weights/{target}/{variant}.tsv"
    wildcard_constraints:
        variant=variants_with(is_refined=True),
    conda:
        "../envs/quantization.yaml"
    threads: 2
    resources:
        mem_mb=MEMORY.of("refine_weights"),
        runtime=60,
    params:
        target=JOB.target,
        options=JOB.refinement_options,
        preprocessing=JOB.preprocessing,
        raw_pixels=JOB.is_fed_raw_pixels,
        code=code_of("refine_weights"),
    message:
        "Choose the steps of the weights of {wildcards.model} for {wildcards.target}, {wildcards.variant}"
    script:
        "../scripts/refine_weights.py"
