"""The transformer inside a MobileViT block: pre-norm, multi-head self-attention, two-layer MLP.

Shapes in comments: S independent sequences, T tokens in each, D hidden size, A heads of size d = D / A, M MLP width.
Sequences never see each other; which tokens form one is decided in `block.py`.
"""

import math

import torch
from torch import nn

from mobilevit_fast.config import MobileViTConfig
from mobilevit_fast.config.activations import make_activation


class MobileViTSelfAttention(nn.Module):
    """softmax(Q Kᵀ / sqrt(d)) V per head (arXiv 1706.03762, equation 1), without the projection after it."""

    def __init__(self, config: MobileViTConfig, hidden_size: int) -> None:
        super().__init__()
        if hidden_size % config.num_attention_heads != 0:
            raise ValueError(
                f"MobileViTSelfAttention.hidden_size: expected a multiple of "
                f"num_attention_heads={config.num_attention_heads}, got {hidden_size}"
            )
        self.num_attention_heads = config.num_attention_heads
        self.attention_head_size = hidden_size // config.num_attention_heads
        self.all_head_size = hidden_size
        self.query = nn.Linear(hidden_size, hidden_size, bias=config.qkv_bias)
        self.key = nn.Linear(hidden_size, hidden_size, bias=config.qkv_bias)
        self.value = nn.Linear(hidden_size, hidden_size, bias=config.qkv_bias)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def split_heads(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(S, T, D) -> (S, A, T, d), a view."""
        sequences, tokens, _ = hidden_states.shape
        heads = hidden_states.view(sequences, tokens, self.num_attention_heads, self.attention_head_size)
        return heads.transpose(1, 2)  # (S, T, A, d) -> (S, A, T, d)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        query = self.split_heads(self.query(hidden_states))  # (S, T, D) -> (S, A, T, d)
        key = self.split_heads(self.key(hidden_states))  # (S, T, D) -> (S, A, T, d)
        value = self.split_heads(self.value(hidden_states))  # (S, T, D) -> (S, A, T, d)

        scores = torch.matmul(query, key.transpose(-1, -2))  # (S, A, T, T)
        scores = scores / math.sqrt(self.attention_head_size)  # (S, A, T, T)
        probabilities = scores.softmax(dim=-1)  # (S, A, T, T), rows sum to 1
        probabilities = self.dropout(probabilities)  # (S, A, T, T)

        context = torch.matmul(probabilities, value)  # (S, A, T, d)
        return context.transpose(1, 2).flatten(2)  # (S, A, T, d) -> (S, T, A, d) -> (S, T, D)


class MobileViTSelfOutput(nn.Module):
    """The projection after the heads. The residual is added by `MobileViTTransformerLayer`."""

    def __init__(self, config: MobileViTConfig, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.dense(hidden_states))  # (S, T, D)


class MobileViTAttention(nn.Module):
    """Multi-head self-attention with its projection."""

    def __init__(self, config: MobileViTConfig, hidden_size: int) -> None:
        super().__init__()
        self.attention = MobileViTSelfAttention(config, hidden_size)
        self.output = MobileViTSelfOutput(config, hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.output(self.attention(hidden_states))  # (S, T, D)


class MobileViTIntermediate(nn.Module):
    """First half of the MLP: widen and activate."""

    def __init__(self, config: MobileViTConfig, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, intermediate_size)
        self.intermediate_act_fn = make_activation(config.hidden_act)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.intermediate_act_fn(self.dense(hidden_states))  # (S, T, D) -> (S, T, M)


class MobileViTOutput(nn.Module):
    """Second half of the MLP: narrow, and add the residual."""

    def __init__(self, config: MobileViTConfig, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(intermediate_size, hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor, input_tensor: torch.Tensor) -> torch.Tensor:
        hidden_states = self.dropout(self.dense(hidden_states))  # (S, T, M) -> (S, T, D)
        return hidden_states + input_tensor  # (S, T, D)


class MobileViTTransformerLayer(nn.Module):
    """x + attention(norm(x)), then the same with the MLP."""

    def __init__(self, config: MobileViTConfig, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.attention = MobileViTAttention(config, hidden_size)
        self.intermediate = MobileViTIntermediate(config, hidden_size, intermediate_size)
        self.output = MobileViTOutput(config, hidden_size, intermediate_size)
        self.layernorm_before = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.layernorm_after = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        attention_output = self.attention(self.layernorm_before(hidden_states))  # (S, T, D)
        hidden_states = attention_output + hidden_states  # (S, T, D)
        intermediate = self.intermediate(self.layernorm_after(hidden_states))  # (S, T, M)
        return self.output(intermediate, hidden_states)  # (S, T, D)


class MobileViTTransformer(nn.Module):
    """`num_stages` transformer layers in a row."""

    def __init__(self, config: MobileViTConfig, hidden_size: int, num_stages: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList()
        for _ in range(num_stages):
            self.layer.append(
                MobileViTTransformerLayer(config, hidden_size, intermediate_size=int(hidden_size * config.mlp_ratio))
            )

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        for layer_module in self.layer:
            hidden_states = layer_module(hidden_states)  # (S, T, D)
        return hidden_states
