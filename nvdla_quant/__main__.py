"""``python -m nvdla_quant``: the command line."""

from nvdla_quant.cli import main

main()
