"""Slow twins: every operation in plain NumPy, float64, readable in a minute. The oracles of the tests.

One section a family, in the order of fastconv.functional.
"""

# --- convolution and linear -------------------------------------------------------------------------------

# --- pooling ----------------------------------------------------------------------------------------------

# --- activations and losses -------------------------------------------------------------------------------

# --- normalisation, dropout, optimiser steps --------------------------------------------------------------
