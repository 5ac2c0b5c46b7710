"""Two models side by side: outputs, sizes, loading, latency."""
