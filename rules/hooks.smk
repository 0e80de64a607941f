# What happens before and after a run; no rules here.
import shutil
import sys


onstart:
    # Snakemake starts at most 100 jobs a second, and to keep to that looks over all that is ready once more a second after
    # each time that it looked: with hundreds of jobs done this takes half a core (its pull request 3744). Jobs on this
    # machine need no limit.
    if workflow.local_exec:
        workflow.scheduler.job_rate_limiter = None


onsuccess:
    print_summary()


def print_summary():
    """Show the sweep's table, what repeated seeds gave, and the answers on the terminal."""
    from nvdla_quant.report.evidence import read_evidence
    from nvdla_quant.report.recommendation.answers import closing
    from nvdla_quant.report.terminal import render_fidelity, render_summary

    names = ("verdicts", "costs", "fidelities", "fidelity_pairs")
    files = {name: getattr(SWEEP, name) for name in names}
    made = (*SWEEP.accuracies, *SWEEP.comparisons, *(path for paths in files.values() for path in paths), SWEEP.page)
    if not all(Path(path).is_file() for path in made):
        return  # Only a part of the sweep was asked for.
    evidence = read_evidence(SWEEP.accuracies, SWEEP.comparisons, SWEEP.groups, **files)
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else 120
    if evidence.cases:
        print(render_summary(evidence.accuracies, width=width, colour=terminal))
    if evidence.measured:
        print(render_fidelity(evidence.fidelity, width=width, colour=terminal))
    answers = closing(evidence, SETTINGS["keep"])
    print(f"{answers}Why, and everything else: {SWEEP.page}")
