"""The flow: settings, topics, the batch transport, fenced state and windows. Agents build on it; it knows none."""
