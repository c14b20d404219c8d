"""What computation costs: counted FLOPs, the paper's cost model, wall clock and scorer throughput."""
