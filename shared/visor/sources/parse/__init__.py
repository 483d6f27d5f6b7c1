"""Parse: prices, text, encodings and embedded data of catalogues."""
