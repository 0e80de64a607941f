# Bring the network to the form that is compiled, and check what each target can run of it.
#
# Needs: the model's prototxt and caffemodel, or its ONNX file; to equalize it, images/calibration-{calibrator}.npz.
# Makes: network/{network}/deploy.prototxt, weights.caffemodel; {target}/support.json.
#        network/fold-equalize/ likewise, with equalization.tsv: what each channel was multiplied by.
#        Of an ONNX model network/imported/network.onnx, names.json, remarks.txt, size.json, which stands for it everywhere
#        else, and network/{network}/network.onnx; that form as Caffe's files only where something reads no other
#        (nvdla_compiler).
#        Of a Caffe model with cut_at network/cut/deploy.prototxt, weights.caffemodel, which stand for it in the same way.
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
        cut_at=JOB.cut_at,
        code=code_of("import_network"),
    message:
        "Read {wildcards.model}"
    script:
        "../scripts/import_network.py"


rule cut_network:
    input:
        model=JOB.model_files,
    output:
        prototxt="<results>/{model}/{dataset}/network/cut/deploy.prototxt",
        caffemodel="<results>/{model}/{dataset}/network/cut/weights.caffemodel",
    log:
        "<case_logs>/cut_network.log",
    benchmark:
        "<case_benchmarks>/cut_network.tsv"
    wildcard_constraints:
        model=alternatives(CONFIGURATION.cut_models),
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("cut_network"),
        runtime=10,
    params:
        cut_at=JOB.cut_at,
        code=code_of("cut_network"),
    message:
        "Cut {wildcards.model}"
    script:
        "../scripts/cut_network.py"


rule prepare_network:
    input:
        network=JOB.unprepared,
    output:
        prototxt="<results>/{model}/{dataset}/network/{network}/deploy.prototxt",
        caffemodel="<results>/{model}/{dataset}/network/{network}/weights.caffemodel",
    log:
        "<case_logs>/prepare_network/{network}.log",
    benchmark:
        "<case_benchmarks>/prepare_network/{network}.tsv"
    wildcard_constraints:
        model=alternatives(CONFIGURATION.models(onnx=False)),
        network=FORMS,
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
        network=JOB.unprepared,
    output:
        network="<results>/{model}/{dataset}/network/{network}/network.onnx",
    log:
        "<case_logs>/prepare_onnx_network/{network}.log",
    benchmark:
        "<case_benchmarks>/prepare_onnx_network/{network}.tsv"
    wildcard_constraints:
        model=alternatives(CONFIGURATION.models(onnx=True)),
        network=FORMS,
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


# Its form for raw pixels is made from it by the rules above.
rule equalize_network:
    input:
        network=JOB.network,
        images=JOB.equalization_images,
    output:
        prototxt="<results>/{model}/{dataset}/network/fold-equalize/deploy.prototxt",
        caffemodel="<results>/{model}/{dataset}/network/fold-equalize/weights.caffemodel",
        report="<results>/{model}/{dataset}/network/fold-equalize/equalization.tsv",
    log:
        "<case_logs>/equalize_network.log",
    benchmark:
        "<case_benchmarks>/equalize_network.tsv"
    wildcard_constraints:
        model=alternatives(CONFIGURATION.models(onnx=False)),
    conda:
        "../envs/quantization.yaml"
    threads: 2
    resources:
        mem_mb=MEMORY.of("equalize_network"),
        runtime=60,
    params:
        preprocessing=JOB.preprocessing,
        code=code_of("equalize_network"),
    message:
        "Equalize {wildcards.model} on {wildcards.dataset}"
    script:
        "../scripts/equalize_network.py"


use rule equalize_network as equalize_onnx_network with:
    output:
        network="<results>/{model}/{dataset}/network/fold-equalize/network.onnx",
        report="<results>/{model}/{dataset}/network/fold-equalize/equalization.tsv",
    log:
        "<case_logs>/equalize_onnx_network.log",
    benchmark:
        "<case_benchmarks>/equalize_onnx_network.tsv"
    wildcard_constraints:
        model=alternatives(CONFIGURATION.models(onnx=True)),


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
