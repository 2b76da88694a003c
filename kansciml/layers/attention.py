"""Multi-head self-attention (Vaswani et al. 2017, section 3.2)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    r"""softmax(Q K^T / sqrt(D / heads)) V for every head, then a linear map.

    PyTorch chooses the kernel. Second derivatives (Hessians) need its plain one: run them inside
    ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``.

    Args:
        width: features D.
        heads: number of heads; divides `width`.
        qkv_bias: biases on queries, keys and values (default).

    Parameters: 4 D^2 + D, and 3 D for the biases of `qkv`.

    Raises:
        ValueError: heads that do not divide the width.
    """

    def __init__(self, width: int, heads: int, qkv_bias: bool = True) -> None:
        super().__init__()
        if min(width, heads) < 1 or width % heads:
            raise ValueError(f"got width {width} and {heads} heads: expected heads that divide the width")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        b, n, d = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)  # (3, B, heads, N, D/h)
        q, k, v = qkv.unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(b, n, d))
