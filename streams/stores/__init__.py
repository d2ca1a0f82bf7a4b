"""PostgreSQL for history, Redis for the hot view and the alert stream; and the sinks that fill them."""
