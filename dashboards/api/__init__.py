"""The gateway: REST with OpenAPI, and alerts over a WebSocket, on one origin."""
