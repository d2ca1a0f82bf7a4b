"""What the pipeline must come to, told slowly and plainly: one event after the other, no batches, no snapshots."""
