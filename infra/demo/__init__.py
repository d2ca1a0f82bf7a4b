"""The demo fleet: real models, trained and served for real, disturbed on a seeded schedule that is written down."""
