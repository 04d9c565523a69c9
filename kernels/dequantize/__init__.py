"""dequantize: weights from codes of 8 or 4 bits and the scales of their blocks."""
