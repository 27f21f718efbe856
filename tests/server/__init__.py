"""The WebSocket class for uvicorn, as clients and applications meet it."""
