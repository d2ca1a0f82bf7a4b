"""The Faust transport that delivers record batches (`kafkabatch://`)."""
