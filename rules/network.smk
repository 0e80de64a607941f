# Bring the network to the form that is compiled, and check what each target can run of it.
#
# Needs: the model's prototxt and caffemodel, or its ONNX file.
# Makes: network/{network}/deploy.prototxt, weights.caffemodel; {target}/support.json.
#        Of an ONNX model network/imported/network.onnx, names.json, remarks.txt, size.json, which stands for it everywhere
#        else, and network/{network}/network.onnx; that form as Caffe's files only where something reads no other
#        (nvdla_compiler).
#
# Outputs are spelled out, since constraints do not reach the wildcards of a pathvar: Caffe models and ONNX models have
# rules of their own.


rule import_network:
    input:
        model=JOB.model_files,
    output:
        network="<results>/{model}/{dataset}/network/imported/network.onnx",
        names="<results>/{model}/{dataset}/network/imported/names.json",
        remarks="<results>/{model}/{dataset}/network/imported/remarks.txt",
        size="<results>/{model}/{dataset}/network/imported/size.json",
    log:
        "<case_logs>/import_network.log",
    benchmark:
        "<case_benchmarks>/import_network.tsv"
    wildcard_constraints:
        model=alternatives(CONFIGURATION.models(onnx=True)),
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("import_network"),
        runtime=10,
    params:
        input_shape=JOB.input_shape,
        code=code_of("import_network"),
    message:
        "Read {wildcards.model}"
    script:
        "../scripts/import_network.py"


rule prepare_network:
    input:
        network=JOB.network,
    output:
        prototxt="<results>/{model}/{dataset}/network/{network}/deploy.prototxt",
        caffemodel="<results>/{model}/{dataset}/network/{network}/weights.caffemodel",
    log:
        "<case_logs>/prepare_network/{network}.log",
    benchmark:
        "<case_benchmarks>/prepare_network/{network}.tsv"
    wildcard_constraints:
        model=alternatives(CONFIGURATION.models(onnx=False)),
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("prepare_network"),
        runtime=10,
    params:
        preparation=JOB.preparation,
        code=code_of("prepare_network"),
    message:
        "Prepare {wildcards.model} ({wildcards.network})"
    script:
        "../scripts/prepare_network.py"


rule prepare_onnx_network:
    input:
        network=JOB.network,
    output:
        network="<results>/{model}/{dataset}/network/{network}/network.onnx",
    log:
        "<case_logs>/prepare_onnx_network/{network}.log",
    benchmark:
        "<case_benchmarks>/prepare_onnx_network/{network}.tsv"
    wildcard_constraints:
        model=alternatives(CONFIGURATION.models(onnx=True)),
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("prepare_onnx_network"),
        runtime=10,
    params:
        preparation=JOB.preparation,
        code=code_of("prepare_onnx_network"),
    message:
        "Prepare {wildcards.model} ({wildcards.network})"
    script:
        "../scripts/prepare_onnx_network.py"


rule convert_network:
    input:
        network="<case>/network/{network}/network.onnx",
    output:
        prototxt="<results>/{model}/{dataset}/network/{network}/deploy.prototxt",
        caffemodel="<results>/{model}/{dataset}/network/{network}/weights.caffemodel",
    log:
        "<case_logs>/convert_network/{network}.log",
    benchmark:
        "<case_benchmarks>/convert_network/{network}.tsv"
    wildcard_constraints:
        model=alternatives(CONFIGURATION.models(onnx=True)),
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("convert_network"),
        runtime=10,
    params:
        code=code_of("convert_network"),
    message:
        "Write {wildcards.model} in Caffe ({wildcards.network})"
    script:
        "../scripts/convert_network.py"


rule check_support:
    input:
        network=JOB.network,
        specification=JOB.specification,
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
        mem_mb=MEMORY.of("check_support"),
        runtime=10,
    params:
        target=JOB.target,
        nvdla_compiler=JOB.nvdla_compiler_variants,
        options={key: backend("nvdla_compiler")[key] for key in ("profile", "informat") if backend("nvdla_compiler")},
        code=code_of("check_support"),
    message:
        "Check what {wildcards.target} can run of {wildcards.model}"
    script:
        "../scripts/check_support.py"
