"""What the benchmarks share: processes, CPU accounting, load, a fast Fusebill, figures, table."""
