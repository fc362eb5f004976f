"""The best picture that so many bytes can hold: a GGUF format for each layer, by measured sensitivity and an integer programme."""
