"""Array kernels under River's `AnomalyDetector` interface, with `score_learn_many`."""
