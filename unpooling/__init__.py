"""VGG19 encoders that return where each pooled maximum came from, and decoders that unpool."""
