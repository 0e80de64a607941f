"""Draw the figures of a sweep."""

from collections.abc import Mapping, Sequence
from typing import Any


def plot_figures(
    files: Mapping[str, Sequence[str]],
    groups: Sequence[Mapping[str, Any]],
    calibrators: Sequence[Mapping[str, Any]],
    keep: float,
    figures: Mapping[str, str],
) -> None:
    """Draw and write the figures of a sweep.

    Parameters
    ----------
    files : Mapping
        ``accuracies``, ``comparisons``, ``tables``, ``verdicts``, ``layers``, ``costs``, ``fidelities`` and
        ``fidelity_pairs``, see `read_evidence`.
    groups, calibrators : sequence of Mapping
        Variants without their seeds, and what calibrated them; see there.
    keep : float
        How much of fp32's accuracy the user wants kept, in percent.
    figures : Mapping
        Where each goes, by its name and format: ``accuracy_svg``.
    """
    from nvdla_quant.report.charts.figures import figures as figures_of
    from nvdla_quant.report.charts.style import write_chart
    from nvdla_quant.report.evidence import read_evidence

    evidence = read_evidence(groups=groups, calibrators=calibrators, **files)
    for name, draw in figures_of(keep).items():
        write_chart(draw(evidence), *(path for key, path in figures.items() if key.rpartition("_")[0] == name))


def plot_fidelity(fidelities: Sequence[str], groups: Sequence[Mapping[str, Any]], paths: Sequence[str]) -> None:
    """Draw the outputs of what was measured without labels, and write them to each of `paths`.

    Parameters
    ----------
    fidelities : Sequence[str]
        Of every run of these cases.
    groups : sequence of Mapping
        Their variants without seeds, see `plot_figures`.
    paths : Sequence[str]
        Where the figure goes, in the format of each suffix.
    """
    from nvdla_quant.report.charts.style import write_chart
    from nvdla_quant.report.evidence import read_evidence
    from nvdla_quant.report.fidelity.chart import fidelity_chart

    write_chart(fidelity_chart(read_evidence((), (), groups, fidelities=fidelities)), *paths)
