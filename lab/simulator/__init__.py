"""A simulated exchange: Binance-shaped WebSocket feeds replayed from recordings or generated."""
