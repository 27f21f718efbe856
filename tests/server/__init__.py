"""The server behind runrooms: WebSockets under uvicorn, listeners, workers."""
