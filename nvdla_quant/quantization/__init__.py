"""Better int8 than a calibrator alone gives: equalized ranges, corrected biases, chosen roundings, searched scales."""
