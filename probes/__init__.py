"""Probes: each takes stamps from one vantage point and writes records; none imports another, nor the exporter."""
