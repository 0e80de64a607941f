# Bring the network to the form that is compiled, and check what each target can run of it.
#
# Needs: the model's prototxt and caffemodel.
# Makes: network/{network}/deploy.prototxt, weights.caffemodel; {target}/support.json.


rule prepare_network:
    input:
        prototxt=JOB.prototxt,
        caffemodel=JOB.caffemodel,
    output:
        prototxt="<case>/network/{network}/deploy.prototxt",
        caffemodel="<case>/network/{network}/weights.caffemodel",
    log:
        "<case_logs>/prepare_network/{network}.log",
    benchmark:
        "<case_benchmarks>/prepare_network/{network}.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        preparation=JOB.preparation,
        code=code_of("prepare_network"),
    message:
        "Prepare {wildcards.model} ({wildcards.network})"
    script:
        "../scripts/prepare_network.py"


rule check_support:
    input:
        prototxt=JOB.prototxt,
        caffemodel=JOB.caffemodel,
    output:
        support="<case>/{target}/support.json",
    log:
        "<case_logs>/check_support/{target}.log",
    benchmark:
        "<case_benchmarks>/check_support/{target}.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        target="{target}",
        nvdla_compiler=JOB.nvdla_compiler_variants,
        options={key: backend("nvdla_compiler")[key] for key in ("profile", "informat") if backend("nvdla_compiler")},
        code=code_of("check_support"),
    message:
        "Check what {wildcards.target} can run of {wildcards.model}"
    script:
        "../scripts/check_support.py"
