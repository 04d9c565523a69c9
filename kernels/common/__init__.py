"""What all kernels share, in numpy: element conversion, canonical sums, random draws, mask rules."""
