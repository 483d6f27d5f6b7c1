"""Build: published weights to LiteRT files, with TensorFlow."""
