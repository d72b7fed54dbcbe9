"""Cards for which seconds of learning are estimated."""

CARDS = {"RTX 3090": 71, "RTX 4090": 165, "H100 SXM": 989}
"""TFLOP/s of dense bf16 products with sums in fp32, by the makers' data sheets."""
SHARE = 0.5
"""Of that, assumed to be reached."""
