# Put everything side by side.
#
# Needs: every accuracy.json, comparison.json, fidelity.json, verdict.json, layers.tsv and cost.json, comparisons.json,
#        fidelity.pairs.json, table.raw.json.
# Makes: summary.{tsv,tex,md}, pairs.tsv, seeds.tsv, report/{figure}.{svg,pdf}, manifest.json; report/report.html, which
#        holds run times and so is not in the manifest.


rule summarize_sweep:
    input:
        accuracies=SWEEP.accuracies,
        comparisons=SWEEP.comparisons,
        verdicts=SWEEP.verdicts,
        costs=SWEEP.costs,
        fidelities=SWEEP.fidelities,
        fidelity_pairs=SWEEP.fidelity_pairs,
    output:
        tsv=report(
            "<results>/summary.tsv", caption="../report/summary.rst", category="Tables", labels={"item": "summary"}
        ),
        pairs=report("<results>/pairs.tsv", caption="../report/pairs.rst", category="Tables", labels={"item": "pairs"}),
        seeds=report("<results>/seeds.tsv", caption="../report/seeds.rst", category="Tables", labels={"item": "seeds"}),
        tex="<results>/summary.tex",
        md="<results>/summary.md",
    log:
        "<logs>/summarize_sweep.log",
    benchmark:
        "<benchmarks>/summarize_sweep.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("summarize_sweep"),
        runtime=10,
    params:
        groups=SWEEP.groups,
        code=code_of("summarize_sweep"),
    message:
        "Summarize the sweep"
    script:
        "../scripts/summarize_sweep.py"


rule plot_figures:
    input:
        accuracies=SWEEP.accuracies,
        comparisons=SWEEP.comparisons,
        tables=SWEEP.raw_tables,
        verdicts=SWEEP.verdicts,
        layers=SWEEP.layers,
        costs=SWEEP.costs,
        fidelities=SWEEP.fidelities,
        fidelity_pairs=SWEEP.fidelity_pairs,
    output:
        accuracy_svg=report(
            "<results>/report/accuracy.svg",
            caption="../report/accuracy.rst",
            category="Figures",
            labels={"item": "accuracy"},
        ),
        accuracy_pdf="<results>/report/accuracy.pdf",
        time_svg=report(
            "<results>/report/time.svg",
            caption="../report/time.rst",
            category="Figures",
            labels={"item": "accuracy against time"},
        ),
        time_pdf="<results>/report/time.pdf",
        costs_svg=report(
            "<results>/report/costs.svg",
            caption="../report/costs.rst",
            category="Figures",
            labels={"item": "time by layer"},
        ),
        costs_pdf="<results>/report/costs.pdf",
        roofline_svg=report(
            "<results>/report/roofline.svg",
            caption="../report/roofline.rst",
            category="Figures",
            labels={"item": "roofline"},
        ),
        roofline_pdf="<results>/report/roofline.pdf",
        images_svg=report(
            "<results>/report/images.svg",
            caption="../report/images.rst",
            category="Figures",
            labels={"item": "images"},
        ),
        images_pdf="<results>/report/images.pdf",
        layers_svg=report(
            "<results>/report/layers.svg",
            caption="../report/layers.rst",
            category="Figures",
            labels={"item": "layers"},
        ),
        layers_pdf="<results>/report/layers.pdf",
        scales_svg=report(
            "<results>/report/scales.svg",
            caption="../report/scales.rst",
            category="Figures",
            labels={"item": "scales"},
        ),
        scales_pdf="<results>/report/scales.pdf",
        classes_svg=report(
            "<results>/report/classes.svg",
            caption="../report/classes.rst",
            category="Figures",
            labels={"item": "classes"},
        ),
        classes_pdf="<results>/report/classes.pdf",
    log:
        "<logs>/plot_figures.log",
    benchmark:
        "<benchmarks>/plot_figures.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("plot_figures"),
        runtime=30,
    params:
        groups=SWEEP.groups,
        calibrators=SWEEP.calibrators,
        keep=SETTINGS["keep"],
        code=code_of("plot_figures"),
    message:
        "Draw the figures"
    script:
        "../scripts/plot_figures.py"


rule write_manifest:
    input:
        inputs=SWEEP.inputs,
        exact=SWEEP.exact,
        processor_dependent=SWEEP.processor_dependent,
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
        mem_mb=MEMORY.of("write_manifest"),
        runtime=10,
    params:
        settings=SETTINGS,
        base=JOB.base,
        command=provenance.command_to_repeat(workflow.configfiles, workflow.config_settings.config, Path.cwd()),
        code=code_of("write_manifest"),
    message:
        "Record digests and versions of everything"
    script:
        "../scripts/write_manifest.py"


rule write_report:
    input:
        accuracies=SWEEP.accuracies,
        comparisons=SWEEP.comparisons,
        tables=SWEEP.raw_tables,
        verdicts=SWEEP.verdicts,
        layers=SWEEP.layers,
        costs=SWEEP.costs,
        fidelities=SWEEP.fidelities,
        fidelity_pairs=SWEEP.fidelity_pairs,
        manifest="<results>/manifest.json",
    output:
        html=report(
            "<results>/report/report.html",
            caption="../report/report.rst",
            category="Report",
            labels={"item": "which mode to use, and why"},
        ),
    log:
        "<logs>/write_report.log",
    benchmark:
        "<benchmarks>/write_report.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=MEMORY.of("write_report"),
        runtime=30,
    params:
        groups=SWEEP.groups,
        calibrators=SWEEP.calibrators,
        keep=SETTINGS["keep"],
        benchmarks=benchmark_patterns,
        runs=run_logs,
        code=code_of("write_report"),
    message:
        "Write the report"
    script:
        "../scripts/write_report.py"
