"""The contracts: everything that crosses a topic, frozen and bounded. No module here imports another room."""
