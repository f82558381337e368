"""Networks: encoders, dendrites, the model directory, and classifiers of transformers."""
