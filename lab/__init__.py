"""The lab: simulated exchange, demo and benchmarks; may use every other part, no part uses it."""
