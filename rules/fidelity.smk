# Measure cases without labels: every output of every variant beside fp32's, and by a command of the user.
#
# Needs: reference/{shard}.npz, dumps/{shard}.npz, images/test-{shard}.npz, network/{network}/, the fixed table (int8).
# Makes: {reference,{target}/{variant}}/numbers.npz, a command's number for each image;
#        {target}/{variant}/fidelity.json, fidelity.npz (by image); fidelity.pairs.json between the variants of a case;
#        fidelity.tsv of all outputs, report/fidelity.{svg,pdf}.


rule number_reference:
    input:
        reference=collect("<case>/reference/{shard}.npz", shard=CONFIGURATION.shards, allow_missing=True),
        images=collect("<case>/images/test-{shard}.npz", shard=CONFIGURATION.shards, allow_missing=True),
        command=JOB.command_files,
    output:
        numbers="<case>/reference/numbers.npz",
    log:
        "<case_logs>/number_reference.log",
    benchmark:
        "<case_benchmarks>/number_reference.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("number_reference"),
        runtime=240,
    params:
        command=JOB.command,
        code=code_of("number_reference"),
    message:
        "Ask the command about {wildcards.model} on {wildcards.dataset} in fp32"
    script:
        "../scripts/number_reference.py"


rule number_variant:
    input:
        dumps=collect("<case>/{target}/{variant}/dumps/{shard}.npz", shard=CONFIGURATION.shards, allow_missing=True),
        reference=collect("<case>/reference/{shard}.npz", shard=CONFIGURATION.shards, allow_missing=True),
        images=collect("<case>/images/test-{shard}.npz", shard=CONFIGURATION.shards, allow_missing=True),
        network=JOB.prepared_structure,
        table=JOB.table,
        command=JOB.command_files,
    output:
        numbers="<case>/{target}/{variant}/numbers.npz",
    log:
        "<case_logs>/number_variant/{target}/{variant}.log",
    benchmark:
        "<case_benchmarks>/number_variant/{target}/{variant}.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("number_variant"),
        runtime=240,
    params:
        command=JOB.command,
        code=code_of("number_variant"),
    message:
        "Ask the command about {wildcards.model} on {wildcards.dataset}: {wildcards.target}, {wildcards.variant}"
    script:
        "../scripts/number_variant.py"


rule score_fidelity:
    input:
        reference=collect("<case>/reference/{shard}.npz", shard=CONFIGURATION.shards, allow_missing=True),
        dumps=collect("<case>/{target}/{variant}/dumps/{shard}.npz", shard=CONFIGURATION.shards, allow_missing=True),
        network=JOB.prepared_structure,
        table=JOB.table,
        numbers=JOB.numbers,
    output:
        fidelity="<case>/{target}/{variant}/fidelity.json",
        images="<case>/{target}/{variant}/fidelity.npz",
    log:
        "<case_logs>/score_fidelity/{target}/{variant}.log",
    benchmark:
        "<case_benchmarks>/score_fidelity/{target}/{variant}.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("score_fidelity"),
        runtime=30,
    params:
        subject=JOB.subject,
        task=JOB.task,
        code=code_of("score_fidelity"),
    message:
        "Hold {wildcards.model} on {wildcards.dataset} to fp32: {wildcards.target}, {wildcards.variant}"
    script:
        "../scripts/score_fidelity.py"


rule compare_fidelities:
    input:
        fidelities=JOB.fidelities,
        images=JOB.image_errors,
        numbers=JOB.reference_numbers,
    output:
        comparisons="<case>/fidelity.pairs.json",
    log:
        "<case_logs>/compare_fidelities.log",
    benchmark:
        "<case_benchmarks>/compare_fidelities.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("compare_fidelities"),
        runtime=20,
    params:
        case=JOB.case,
        groups=JOB.groups,
        pairs=JOB.pairs,
        runs=JOB.runs,
        task=JOB.task,
        code=code_of("compare_fidelities"),
    message:
        "Compare the variants of {wildcards.model} on {wildcards.dataset} by their outputs"
    script:
        "../scripts/compare_fidelities.py"


rule summarize_fidelity:
    input:
        fidelities=SWEEP.fidelities,
    output:
        tsv=report(
            "<results>/fidelity.tsv", caption="../report/fidelity.rst", category="Tables", labels={"item": "fidelity"}
        ),
    log:
        "<logs>/summarize_fidelity.log",
    benchmark:
        "<benchmarks>/summarize_fidelity.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("summarize_fidelity"),
        runtime=10,
    params:
        code=code_of("summarize_fidelity"),
    message:
        "Summarize the outputs of the sweep"
    script:
        "../scripts/summarize_fidelity.py"


rule plot_fidelity:
    input:
        fidelities=SWEEP.fidelities,
    output:
        fidelity_svg=report(
            "<results>/report/fidelity.svg",
            caption="../report/fidelity.rst",
            category="Figures",
            labels={"item": "fidelity"},
        ),
        fidelity_pdf="<results>/report/fidelity.pdf",
    log:
        "<logs>/plot_fidelity.log",
    benchmark:
        "<benchmarks>/plot_fidelity.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("plot_fidelity"),
        runtime=30,
    params:
        groups=SWEEP.measured_groups,
        code=code_of("plot_fidelity"),
    message:
        "Draw the fidelity of the outputs"
    script:
        "../scripts/plot_fidelity.py"
