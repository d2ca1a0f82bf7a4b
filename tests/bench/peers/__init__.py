"""The same work as other people's documentation would have it done."""
