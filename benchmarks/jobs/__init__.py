"""The jobs of the job-level benchmarks: one app a queue, and what runs and fills it."""
