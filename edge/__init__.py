"""A plant: signals to samples, samples to training and an update; model to inference, inference to the namespace."""
