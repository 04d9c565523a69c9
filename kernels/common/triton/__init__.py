"""What all kernels share, in Triton: element conversion, canonical sums, random draws, mask rules, launches.

Imported only by kernels/*/triton.py, so that nothing else needs Triton.
"""
