# From the calibration cache to the table that the compiler takes.
#
# Needs: calibration.cache, the model, network/{network}/.
# Makes: table.raw.json (names as in the cache); {table}/table.fixed.json (layer names, consistent scales), changes.tsv.
#        A table of the equalized network is made from the cache of that.


rule convert_cache:
    input:
        cache="<case>/calibration/{calibrator}/calibration.cache",
    output:
        table="<case>/calibration/{calibrator}/table.raw.json",
    log:
        "<case_logs>/convert_cache/{calibrator}.log",
    benchmark:
        "<case_benchmarks>/convert_cache/{calibrator}.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("convert_cache"),
        runtime=10,
    params:
        code=code_of("convert_cache"),
    message:
        "Convert the calibration cache of {wildcards.model}, {wildcards.calibrator}"
    script:
        "../scripts/convert_cache.py"


use rule convert_cache as convert_equalized_cache with:
    input:
        cache="<case>/calibration/{calibrator}/fold-equalize/calibration.cache",
    output:
        table="<case>/calibration/{calibrator}/fold-equalize/table.raw.json",
    log:
        "<case_logs>/convert_equalized_cache/{calibrator}.log",
    benchmark:
        "<case_benchmarks>/convert_equalized_cache/{calibrator}.tsv"
    message:
        "Convert the calibration cache of {wildcards.model}, equalized, {wildcards.calibrator}"


rule fix_table:
    input:
        cache=JOB.cache,
        network=JOB.table_structure,
        prepared=JOB.table_network,
    output:
        table="<case>/calibration/{calibrator}/{table}/table.fixed.json",
        changes="<case>/calibration/{calibrator}/{table}/changes.tsv",
    log:
        "<case_logs>/fix_table/{calibrator}/{table}.log",
    benchmark:
        "<case_benchmarks>/fix_table/{calibrator}/{table}.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("fix_table"),
        runtime=10,
    params:
        options=JOB.table_options,
        code=code_of("fix_table"),
    message:
        "Fix names and scales of the table of {wildcards.model}, {wildcards.calibrator}, {wildcards.table}"
    script:
        "../scripts/fix_table.py"
