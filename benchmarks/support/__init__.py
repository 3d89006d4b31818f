"""What the benchmarks share: contenders in processes of their own, interleaved rounds, servers, tables."""
