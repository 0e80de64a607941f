# Compile loadables.
#
# Needs: network/{network}/, the fixed table (int8), {target}/support.json.
# Makes: {target}/{variant}/loadable.nvdla, compile.json.


rule compile_loadable:
    input:
        prototxt=prepared_prototxt_of,
        caffemodel=prepared_caffemodel_of,
        table=table_of,
        support="<case>/{target}/support.json",
    output:
        loadable="<case>/{target}/{variant}/loadable.nvdla",
        report="<case>/{target}/{variant}/compile.json",
    log:
        "<case_logs>/compile_loadable/{target}/{variant}.log",
    benchmark:
        "<case_benchmarks>/compile_loadable/{target}/{variant}.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=20,
    params:
        target="{target}",
        options=compile_options_of,
        code=code_of("compile_loadable"),
    message:
        "Compile {wildcards.model} for {wildcards.target}, {wildcards.variant}"
    script:
        "../scripts/compile_loadable.py"
