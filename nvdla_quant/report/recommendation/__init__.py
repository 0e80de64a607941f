"""Which variant to use, and why: computed from comparisons and times, and worded as far as they carry."""
