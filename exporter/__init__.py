"""The exporter: joins the records of every ring and serves what comes of it to Prometheus."""
