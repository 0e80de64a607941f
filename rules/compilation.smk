# Compile loadables, and estimate how long they take on the hardware.
#
# Needs: network/{network}/, the fixed or searched table (int8), weights.steps.npz where the variant has them,
#        {target}/support.json.
# Makes: {target}/{variant}/loadable.nvdla, compile.json; by this package's compiler or by NVIDIA's, as the variant says;
#        cost.json of each loadable.


rule compile_loadable:
    input:
        network=JOB.prepared,
        table=JOB.table,
        weights=JOB.weight_steps,
        support="<case>/{target}/support.json",
        specification=JOB.specification,
    output:
        loadable="<case>/{target}/{variant}/loadable.nvdla",
        report="<case>/{target}/{variant}/compile.json",
    log:
        "<case_logs>/compile_loadable/{target}/{variant}.log",
    benchmark:
        "<case_benchmarks>/compile_loadable/{target}/{variant}.tsv"
    wildcard_constraints:
        variant=variants_with(compiler="builtin"),
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("compile_loadable"),
        runtime=20,
    params:
        target=JOB.target,
        options=JOB.builtin_options,
        code=code_of("compile_loadable"),
    message:
        "Compile {wildcards.model} for {wildcards.target}, {wildcards.variant}"
    script:
        "../scripts/compile_loadable.py"


rule compile_with_nvdla_compiler:
    input:
        network=JOB.prepared,
        table=JOB.table,
        support="<case>/{target}/support.json",
    output:
        loadable="<case>/{target}/{variant}/loadable.nvdla",
        report="<case>/{target}/{variant}/compile.json",
    log:
        "<case_logs>/compile_with_nvdla_compiler/{target}/{variant}.log",
    benchmark:
        "<case_benchmarks>/compile_with_nvdla_compiler/{target}/{variant}.tsv"
    wildcard_constraints:
        variant=variants_with(compiler="nvdla_compiler"),
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("compile_with_nvdla_compiler"),
        runtime=60,
    params:
        target=JOB.target,
        options=JOB.compile_options,
        backend=backend("nvdla_compiler"),
        code=code_of("compile_with_nvdla_compiler"),
    message:
        "Compile {wildcards.model} for {wildcards.target}, {wildcards.variant}, with nvdla_compiler"
    script:
        "../scripts/compile_with_nvdla_compiler.py"


# One job for all: an estimate takes a twentieth of a second, and the start of a job ten times as long.
rule estimate_costs:
    input:
        loadables=SWEEP.loadables,
        claims=SWEEP.claims,
        specifications=list(CONFIGURATION.specs.values()),
    output:
        SWEEP.costs,
    log:
        "<logs>/estimate_costs.log",
    benchmark:
        "<benchmarks>/estimate_costs.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("estimate_costs"),
        runtime=30,
    params:
        runs=SWEEP.estimates,
        memory=SETTINGS["memory"],
        cpu_cycles=SETTINGS["cpu_cycles"],
        code=code_of("estimate_costs"),
    message:
        "Estimate how long the loadables take on the hardware"
    script:
        "../scripts/estimate_costs.py"
