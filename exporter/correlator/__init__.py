"""The correlator: records in, joined messages and histograms out; C without the GIL."""
