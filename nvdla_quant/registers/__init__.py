"""Register programs: what the registers are, traces of their writes, and a model of the hardware behind them."""
