"""What a run is about to train, and how long that takes, from a few steps of each model."""
