"""Exposition: what the correlator knows, in the formats that Prometheus reads."""
