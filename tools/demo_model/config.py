"""The demo model's shape, and its config.json in DeepSeek-V3's spelling."""

from dataclasses import dataclass

END_OF_TEXT = "<|endoftext|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
SPECIALS = [END_OF_TEXT, IM_START, IM_END]

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@dataclass
class ModelConfig:
    vocab_size: int = 8192
    hidden: int = 256
    layers: int = 7
    dense_layers: int = 1
    dense_intermediate: int = 512
    moe_intermediate: int = 96
    experts: int = 32
    top_k: int = 4
    routed_scaling: float = 2.0
    heads: int = 8
    q_lora: int = 128
    kv_lora: int = 64
    nope: int = 32
    rope: int = 16
    v_dim: int = 32
    eps: float = 1e-6
    rope_theta: float = 10000.0
    max_positions: int = 2048

    @property
    def qk_dim(self):
        return self.nope + self.rope

    def to_hf(self):
        return {
            "architectures": ["DeepseekV3ForCausalLM"],
            "model_type": "deepseek_v3",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": None,
            "eos_token_id": 2,
            "pad_token_id": 0,
            "dtype": "bfloat16",
            "first_k_dense_replace": self.dense_layers,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.dense_intermediate,
            "kv_lora_rank": self.kv_lora,
            "max_position_embeddings": self.max_positions,
            "moe_intermediate_size": self.moe_intermediate,
            "moe_layer_freq": 1,
            "n_group": 1,
            "n_routed_experts": self.experts,
            "n_shared_experts": 1,
            "norm_topk_prob": True,
            "num_attention_heads": self.heads,
            "num_experts_per_tok": self.top_k,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.heads,
            "num_nextn_predict_layers": 1,
            "q_lora_rank": self.q_lora,
            "qk_nope_head_dim": self.nope,
            "qk_rope_head_dim": self.rope,
            "rms_norm_eps": self.eps,
            "rope_interleave": True,
            "rope_scaling": None,
            "rope_theta": self.rope_theta,
            "routed_scaling_factor": self.routed_scaling,
            "scoring_func": "sigmoid",
            "tie_word_embeddings": True,
            "topk_group": 1,
            "topk_method": "noaux_tc",
            "use_cache": True,
            "v_head_dim": self.v_dim,
            "vocab_size": self.vocab_size,
            "quantization_config": {
                "quant_method": "fp8",
                "fmt": "e4m3",
                "activation_scheme": "dynamic",
                "weight_block_size": [128, 128],
            },
        }
