"""The attention of models that learn: never the kernel that ComfyUI was started with.

Some of those have no backward pass, and say nothing.
"""

from torch import Tensor

from ....attention import attend


def own_attention(func: object, q: Tensor, k: Tensor, v: Tensor, heads: int, mask=None, **kwargs) -> Tensor:
    """For `optimized_attention_override` in `transformer_options`; heads lie side by side in the channels."""
    assert mask is None
    assert not kwargs.get("skip_reshape")
    return attend(q, k, v, heads)
