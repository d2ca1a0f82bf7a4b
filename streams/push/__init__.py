"""Web push, what gateways and workers share: keys, the message's encryption, subscriptions, safe endpoints."""
