# Put everything side by side.
#
# Needs: every accuracy.json and verdict.json.
# Makes: summary.tsv, summary.tex, report/accuracy.{svg,pdf,html}, manifest.json.


rule summarize_sweep:
    input:
        accuracies=accuracy_files(),
        verdicts=verdict_files(),
    output:
        tsv=report(
            "<results>/summary.tsv", caption="../report/summary.rst", category="Accuracy", labels={"item": "table"}
        ),
        tex="<results>/summary.tex",
    log:
        "<logs>/summarize_sweep.log",
    benchmark:
        "<benchmarks>/summarize_sweep.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        code=code_of("summarize_sweep"),
    message:
        "Summarize the sweep"
    script:
        "../scripts/summarize_sweep.py"


rule plot_accuracy:
    input:
        accuracies=accuracy_files(),
    output:
        svg=report(
            "<results>/report/accuracy.svg",
            caption="../report/accuracy.rst",
            category="Accuracy",
            labels={"item": "plot"},
        ),
        pdf="<results>/report/accuracy.pdf",
        html=report(
            "<results>/report/accuracy.html",
            caption="../report/accuracy.rst",
            category="Accuracy",
            labels={"item": "interactive plot"},
        ),
    log:
        "<logs>/plot_accuracy.log",
    benchmark:
        "<benchmarks>/plot_accuracy.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=code_of("plot_accuracy"),
    message:
        "Plot accuracy with intervals"
    script:
        "../scripts/plot_accuracy.py"


rule write_manifest:
    input:
        inputs=input_files(),
        exact=exact_artefacts(),
        processor_dependent=processor_dependent_artefacts(),
    output:
        manifest="<results>/manifest.json",
    log:
        "<logs>/write_manifest.log",
    benchmark:
        "<benchmarks>/write_manifest.tsv"
    conda:
        "../envs/quantization.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        settings=SETTINGS,
        code=code_of("write_manifest"),
    message:
        "Record digests and versions of everything"
    script:
        "../scripts/write_manifest.py"
