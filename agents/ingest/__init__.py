"""The door: what breaks the contract leaves here, with its reason."""
