"""What tools/bench_all.py is made of: each part measures one thing and returns its tables."""
