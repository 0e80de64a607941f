# Get the files that the configuration names by URL, and those inside archives; every digest is checked.
#
# Needs: a network, or the files in downloads/placed; archives on this machine.
# Makes: downloads/{digest}/file/{file}, downloads/{digest}/member/{path}, downloads/{digest}/folder/{path}/.


rule download_file:
    output:
        file=ensure("downloads/{digest}/file/{file}", sha256=JOB.sha256),
    log:
        "<logs>/download_file/{digest}-{file}.log",
    benchmark:
        "<benchmarks>/download_file/{digest}-{file}.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("download_file"),
        runtime=600,
    params:
        source=JOB.source,
        code=code_of("download_file"),
    message:
        "Download {wildcards.file}"
    script:
        "../scripts/download_file.py"


rule take_member:
    input:
        archive=JOB.archive_of_member,
    output:
        file="downloads/{digest}/member/{path}",
    log:
        "<logs>/take_member/{digest}/{path}.log",
    benchmark:
        "<benchmarks>/take_member/{digest}/{path}.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("take_member"),
        runtime=30,
    params:
        source=JOB.source,
        code=code_of("take_member"),
    message:
        "Take {wildcards.path} out of {input.archive}"
    script:
        "../scripts/take_member.py"


rule take_folder:
    input:
        archive=JOB.archive_of_folder,
    output:
        folder=directory("downloads/{digest}/folder/{path}"),
    log:
        "<logs>/take_folder/{digest}/{path}.log",
    benchmark:
        "<benchmarks>/take_folder/{digest}/{path}.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("take_folder"),
        runtime=120,
    params:
        source=JOB.source,
        code=code_of("take_folder"),
    message:
        "Take the folder {wildcards.path} out of {input.archive}"
    script:
        "../scripts/take_folder.py"
