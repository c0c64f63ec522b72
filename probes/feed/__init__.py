"""The feed probe: a venue's WebSocket feed over a stamped socket, parsed and published, every step stamped."""
