"""Web: the HTTP server of the exporter."""
