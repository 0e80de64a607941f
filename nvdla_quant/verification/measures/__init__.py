"""What is measured of a loadable: values, weights and roundings, step by step."""
