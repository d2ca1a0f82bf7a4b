"""A compiled reader of the common shapes of telemetry: JSON to columns in one pass, and no object for an event.

It takes what it is certain that the contract takes, with the same values, and leaves every other record to the
contract: a differential test holds the two together.
"""
