"""Numbers that go into a loadable: scales, integer and half weights, multipliers, look-up tables."""
