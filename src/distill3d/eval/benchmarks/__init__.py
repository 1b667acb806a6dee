"""One file per benchmark; each has `BENCHMARKS`. See `eval.benchmark` for what that is and how to add one."""
