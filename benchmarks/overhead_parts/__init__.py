"""What `benchmarks/overhead.py` starts as processes: the stub server, and a worker for each contestant."""
