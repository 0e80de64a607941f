"""Tables, plots and a page of a sweep; `read_results` gives its results as data frames."""

from nvdla_quant.report.results import Results, read_results

__all__ = ["Results", "read_results"]
