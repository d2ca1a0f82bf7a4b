"""What moved, from what to what, since when, how sure."""
