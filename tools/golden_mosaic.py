"""MosaicGPT (MPT-1B) as a small torch module; its published code is not in any package."""

import math

import torch
from torch import nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast


class MosaicConfig(PretrainedConfig):
    model_type = "mosaic_gpt"

    def __init__(
        self,
        d_model=2048,
        n_heads=16,
        n_layers=24,
        mlp_ratio=4,
        max_seq_len=2048,
        vocab_size=50368,
        attn_qk_ln=True,
        attn_clip_qkv=None,
        alibi=True,
        alibi_bias_max=8,
        no_bias=True,
        **rest
    ):
        self.d_model, self.n_heads, self.n_layers, self.mlp_ratio = d_model, n_heads, n_layers, mlp_ratio
        self.max_seq_len, self.vocab_size = max_seq_len, vocab_size
        self.attn_qk_ln, self.attn_clip_qkv = attn_qk_ln, attn_clip_qkv
        self.alibi, self.alibi_bias_max, self.no_bias = alibi, alibi_bias_max, no_bias
        rest = {
            "attn_impl": "torch",
            "attn_pdrop": 0,
            "resid_pdrop": 0,
            "emb_pdrop": 0,
            "attn_uses_sequence_id": False,
            "prefix_lm": False,
            "softmax_scale": None,
            "logit_scale": None,
            "low_precision_layernorm": True,
            "embedding_fraction": 1.0,
            "init_device": "cpu",
            "param_init_fn": "kaiming_normal_",
            "use_cache": False,
            "tie_word_embeddings": True,
            "verbose": 0,
            **rest,
        }
        super().__init__(**rest)
        self.auto_map = {
            "AutoConfig": "configuration_mosaic_gpt.MosaicGPTConfig",
            "AutoModelForCausalLM": "mosaic_gpt.MosaicGPT",
        }


def norm(width):
    layer = nn.LayerNorm(width, eps=1e-5)
    layer.register_parameter("bias", None)
    return layer


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config.d_model
        self.heads, self.clip = config.n_heads, config.attn_clip_qkv
        self.Wqkv = nn.Linear(width, 3 * width, bias=False)
        if config.attn_qk_ln:
            self.q_ln, self.k_ln = norm(width), norm(width)
        self.out_proj = nn.Linear(width, width, bias=False)

    def forward(self, x, bias):
        fused = self.Wqkv(x)
        if self.clip:
            fused = fused.clamp(-self.clip, self.clip)
        query, key, value = fused.chunk(3, -1)
        if hasattr(self, "q_ln"):
            query, key = self.q_ln(query), self.k_ln(key)
        query, key, value = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (query, key, value))
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + bias
        return self.out_proj((scores.softmax(-1) @ value).transpose(1, 2).flatten(-2))


class Mlp(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.mlp_up = nn.Linear(config.d_model, config.mlp_ratio * config.d_model, bias=False)
        self.mlp_down = nn.Linear(config.mlp_ratio * config.d_model, config.d_model, bias=False)

    def forward(self, x):
        return self.mlp_down(functional.gelu(self.mlp_up(x)))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln_1, self.attn = norm(config.d_model), Attention(config)
        self.ln_2, self.mlp = norm(config.d_model), Mlp(config)

    def forward(self, x, attention_mask=None, bias=None):
        x = x + self.attn(self.ln_1(x), bias)
        return x + self.mlp(self.ln_2(x))


class MosaicGPT(PreTrainedModel):
    config_class = MosaicConfig

    def __init__(self, config):
        super().__init__(config)
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.vocab_size, config.d_model),
                "blocks": nn.ModuleList([Block(config) for _ in range(config.n_layers)]),
                "ln_f": norm(config.d_model),
            }
        )

    def get_input_embeddings(self):
        return self.transformer.wte

    def set_input_embeddings(self, value):
        self.transformer.wte = value

    def _init_weights(self, module):
        pass

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **_):
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def forward(self, input_ids, attention_mask=None, **_):
        length, heads = input_ids.shape[1], self.config.n_heads
        slopes = 2.0 ** (-self.config.alibi_bias_max / heads * torch.arange(1, heads + 1))
        bias = slopes[:, None, None] * torch.arange(1 - length, 1)
        bias = bias.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), torch.finfo(torch.float32).min)
        x = self.transformer.wte(input_ids)
        for block in self.transformer.blocks:
            x = block(x, attention_mask=attention_mask, bias=bias)
        return CausalLMOutputWithPast(logits=functional.linear(self.transformer.ln_f(x), self.transformer.wte.weight))
