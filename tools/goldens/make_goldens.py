"""Makes tests/golden: tiny checkpoints and what transformers computes from them. See README.md."""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import (
    DeepseekV2Config,
    DeepseekV3Config,
    Llama4TextConfig,
    LlamaConfig,
    MixtralConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)
from transformers import AutoModelForCausalLM
from transformers.modeling_layers import MtpLayer
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3DecoderLayer, DeepseekV3RMSNorm

PROMPT_LENGTHS = (1, 2, 7, 33)
NUM_GREEDY = 16
COMMON = dict(vocab_size=128, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0)


def random_weights(model, dtype):
    """Weights that a checkpoint of `dtype` holds exactly; norms and biases are not left at their defaults."""
    for name, p in list(model.named_parameters()) + list(model.named_buffers()):
        if p.dim() == 1 and "norm" in name:
            value = 1 + 0.2 * torch.randn_like(p)
        elif "e_score_correction_bias" in name:
            value = 0.1 * torch.randn_like(p)
        elif "inv_freq" in name:
            continue
        else:
            value = 0.1 * torch.randn_like(p)
        p.data.copy_(value.to(dtype).float())


def fp8_blocks(w):
    """(e4m3 values, scale_inv [blocks, blocks], the values they stand for)."""
    n, k = w.shape
    q = torch.zeros(n, k, dtype=torch.float8_e4m3fn)
    scales = torch.zeros((n + 127) // 128, (k + 127) // 128)
    exact = torch.zeros(n, k)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            part = (slice(128 * i, 128 * i + 128), slice(128 * j, 128 * j + 128))
            scales[i, j] = w[part].abs().max() / 448
            q[part] = (w[part] / scales[i, j]).to(torch.float8_e4m3fn)
            exact[part] = q[part].float() * scales[i, j]
    return q, scales, exact


def saved_tensors(model, folder):
    """The tensors under the names that a checkpoint has (save_pretrained splits what the model fuses)."""
    from safetensors.torch import load_file

    model.save_pretrained(folder / "tmp", max_shard_size="10GB")
    tensors = load_file(folder / "tmp" / "model.safetensors")
    for file in (folder / "tmp").iterdir():
        file.unlink()
    (folder / "tmp").rmdir()
    return tensors


def is_quantised(name, tensor):
    return (
        tensor.dim() == 2
        and "embed" not in name
        and "head" not in name
        and ".gate.weight" not in name
        and "eh_proj" not in name
    )


def make_mtp(config, own_ends):
    """An MTP layer with random weights; own_ends: its own embedding and head."""
    # The MTP layer has experts like the last layers, whatever its own index here.
    layer_config = type(config)(**{**config.to_dict(), "first_k_dense_replace": 0})
    layer_config._attn_implementation = "eager"
    layer = MtpLayer(layer_config, DeepseekV3DecoderLayer, DeepseekV3RMSNorm, 0)
    random_weights(layer, torch.bfloat16)
    ends = {}
    if own_ends:
        for end in ("embed_tokens.weight", "shared_head.head.weight"):
            w = 0.1 * torch.randn(config.vocab_size, config.hidden_size)
            ends[end] = w.bfloat16().float()
    return layer, ends


def mtp_tensors(layer, ends, prefix):
    """Under the names of DeepSeek's checkpoints."""
    tensors = {}
    for name, p in layer.state_dict().items():
        name = name.replace("mtp_block.", "").replace("post_norm.", "shared_head.norm.")
        if name.endswith("experts.gate_up_proj"):
            for e, w in enumerate(p):
                gate, up = w.chunk(2)
                base = f"{prefix}{name.removesuffix('gate_up_proj')}{e}."
                tensors[base + "gate_proj.weight"] = gate.contiguous()
                tensors[base + "up_proj.weight"] = up.contiguous()
        elif name.endswith("experts.down_proj"):
            for e, w in enumerate(p):
                tensors[f"{prefix}{name.removesuffix('down_proj')}{e}.down_proj.weight"] = w.contiguous()
        else:
            tensors[prefix + name] = p
    return tensors | {prefix + name: w for name, w in ends.items()}


def load_mtp(layer, ends, tensors, prefix):
    """The way back: what the (de-quantised) checkpoint says."""
    state = {}
    for name, p in layer.state_dict().items():
        base = prefix + name.replace("mtp_block.", "").replace("post_norm.", "shared_head.norm.")
        if name.endswith("experts.gate_up_proj"):
            base = base.removesuffix("gate_up_proj")
            state[name] = torch.stack(
                [
                    torch.cat((tensors[f"{base}{e}.gate_proj.weight"], tensors[f"{base}{e}.up_proj.weight"]))
                    for e in range(p.shape[0])
                ]
            )
        elif name.endswith("experts.down_proj"):
            base = base.removesuffix("down_proj")
            state[name] = torch.stack([tensors[f"{base}{e}.down_proj.weight"] for e in range(p.shape[0])])
        else:
            state[name] = tensors[base]
    layer.load_state_dict(state)


def mtp_logits(model, layer, ends, ids, next_ids):
    hidden = model.model(ids).last_hidden_state
    embedding = ends.get("embed_tokens.weight", model.model.embed_tokens.weight)
    head = ends.get("shared_head.head.weight", model.lm_head.weight)
    inputs = torch.nn.functional.embedding(next_ids, embedding)
    n = ids.shape[1]
    positions = torch.arange(n)[None]
    mask = torch.full((n, n), float("-inf")).triu(1)[None, None]
    out = layer(inputs, hidden, model.model.rotary_emb(inputs, positions), mask, positions, None)
    return out @ head.T


def greedy(model, ids, count):
    """Without a cache: (tokens, the smallest gap between the two best logits)."""
    out, margin = [], float("inf")
    for _ in range(count):
        best = model(ids).logits[0, -1].topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        out.append(best.indices[0].item())
        ids = torch.cat((ids, best.indices[:1][None]), 1)
    return out, margin


def write_weights(folder, tensors, num_shards):
    tensors = {name: t.contiguous() for name, t in tensors.items()}
    if num_shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    weight_map = {}
    for i in range(num_shards):
        file = f"model-{i + 1:05}-of-{num_shards:05}.safetensors"
        part = names[i::num_shards]
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
        weight_map |= {n: file for n in part}
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")


def old_rope(config, top=None):
    """rope_parameters as files before transformers 5 spelled them."""
    rope = dict(config.pop("rope_parameters"))
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    rope.pop("type", None)
    config["rope_scaling"] = None if kind == "default" else {"type": kind, **rope}


def old_spelling(config):
    old_rope(config)
    config["torch_dtype"] = config.pop("dtype")


def make(root, name, case):
    torch.manual_seed(sum(map(ord, name)))
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    dtype = case.get("dtype", torch.bfloat16)
    config = case["config"]
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"  # the faster ones want aligned sizes
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    random_weights(model, dtype)
    model.tie_weights()
    tensors = saved_tensors(model, folder)
    layer, ends = make_mtp(config, case["mtp"] == "own ends") if "mtp" in case else (None, {})
    mtp_prefix = f"model.layers.{config.num_hidden_layers}."
    if layer is not None:
        tensors |= mtp_tensors(layer, ends, mtp_prefix)

    stored = {}
    exact = {}
    for tensor_name, t in tensors.items():
        if case.get("fp8") and is_quantised(tensor_name, t):
            q, scales, exact[tensor_name] = fp8_blocks(t)
            stored[tensor_name] = q
            stored[tensor_name + "_scale_inv"] = scales
        else:
            exact[tensor_name] = t
            stored[tensor_name] = t if "correction_bias" in tensor_name else t.to(dtype)
    if case.get("fp8"):
        (folder / "exact").mkdir()
        save_file({n: t.contiguous() for n, t in exact.items()}, folder / "exact" / "model.safetensors", {"format": "pt"})
        config.save_pretrained(folder / "exact")
        eager = dict(attn_implementation="eager", experts_implementation="eager")
        model = AutoModelForCausalLM.from_pretrained(folder / "exact", dtype=torch.float32, **eager).eval()
        for file in (folder / "exact").iterdir():
            file.unlink()
        (folder / "exact").rmdir()
        if layer is not None:
            load_mtp(layer, ends, exact, mtp_prefix)

    config_json = json.loads(config.to_json_string(use_diff=False))
    config_json["dtype"] = str(dtype).removeprefix("torch.")
    config_json["architectures"] = [type(model).__name__]
    for key in ("transformers_version", "_name_or_path", "return_dict", "output_attentions", "output_hidden_states"):
        config_json.pop(key, None)
    config_json = {k: v for k, v in config_json.items() if k not in NOISE}
    if case.get("fp8"):
        config_json["quantization_config"] = {
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "quant_method": "fp8",
            "weight_block_size": [128, 128],
        }
    if "respell" in case:
        config_json, stored = case["respell"](config_json, stored)
    (folder / "config.json").write_text(json.dumps(config_json, indent=1, sort_keys=True) + "\n")
    write_weights(folder, stored, case.get("shards", 1))

    cases, logits = [], {}
    for i, length in enumerate(PROMPT_LENGTHS):
        ids = torch.randint(0, config.vocab_size, (1, length))
        tokens, margin = greedy(model, ids, NUM_GREEDY)
        last = min(length, 16)
        entry = {
            "input_ids": ids[0].tolist(),
            "greedy": tokens,
            "min_margin": margin,
            "logits": f"logits_{i}",
            "last_positions": last,
        }
        logits[f"logits_{i}"] = model(ids).logits[0, -last:].contiguous()
        if layer is not None:
            next_ids = torch.cat((ids[:, 1:], torch.tensor([[tokens[0]]])), 1)
            entry |= {"mtp_next": next_ids[0].tolist(), "mtp_logits": f"mtp_logits_{i}"}
            logits[f"mtp_logits_{i}"] = mtp_logits(model, layer, ends, ids, next_ids)[0, -last:].contiguous()
        cases.append(entry)
    import transformers

    golden = {"transformers": transformers.__version__, "torch": torch.__version__, "cases": cases}
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    save_file(logits, folder / "golden.safetensors")
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{name}: {size / 1e6:.2f} MB, margins {[round(c['min_margin'], 4) for c in cases]}")


# Fields of to_json_string(use_diff=False) that say nothing about the model.
NOISE = {
    "problem_type", "id2label", "label2id", "is_encoder_decoder", "chunk_size_feed_forward", "per_layer_config",
    "output_router_logits", "router_aux_loss_coef", "router_jitter_noise", "initializer_range", "use_cache", "attention_dropout",
}  # fmt: skip


def respell_v3(config, tensors):
    old_spelling(config)
    config["num_nextn_predict_layers"] = config.pop("num_mtp_layers", 1)
    return config, tensors


def respell_kimi(config, tensors):
    respell_v3(config, tensors)
    config["model_type"] = "kimi_k2"
    config["topk_method"] = "noaux_tc"
    config["scoring_func"] = "sigmoid"
    return config, tensors


def respell_qwen_moe(config, tensors):
    old_spelling(config)
    config["num_experts"] = config.pop("num_local_experts", None) or config["num_experts"]
    return config, tensors


def respell_plain(config, tensors):
    old_spelling(config)
    return config, tensors


def respell_llama4(config, tensors):
    """As a multimodal folder: nested fields, prefixed names, tensors that the language model does not read."""
    config["attn_temperature_tuning"] = 4
    config.pop("moe_layers")
    config.pop("layer_types")
    config.pop("architectures")
    nested = {
        "architectures": ["Llama4ForConditionalGeneration"],
        "model_type": "llama4",
        "text_config": config,
        "vision_config": {"model_type": "llama4_vision_model", "hidden_size": 48},
        "torch_dtype": "bfloat16",
    }
    tensors = {"language_model." + n: t for n, t in tensors.items()}
    tensors["vision_model.class_embedding"] = torch.zeros(48, dtype=torch.bfloat16)
    return nested, tensors


MLA = dict(
    hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4, kv_lora_rank=24, qk_nope_head_dim=16,
    qk_rope_head_dim=8, v_head_dim=12, intermediate_size=80, first_k_dense_replace=1, num_experts_per_tok=3,
)  # fmt: skip
GQA = dict(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, intermediate_size=80)

CASES = {
    # fp8 blocks with ragged edges, three shards, YaRN with two mscales, MTP with its own embedding and head.
    "deepseek_v3_fp8": dict(
        fp8=True, shards=3, mtp="own ends", respell=respell_v3,
        config=DeepseekV3Config(
            **COMMON | dict(vocab_size=160),
            **MLA | dict(hidden_size=192, intermediate_size=208, q_lora_rank=144, kv_lora_rank=136, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32, num_experts_per_tok=2),
            n_routed_experts=4, n_shared_experts=1, moe_intermediate_size=80, n_group=2, topk_group=1, num_mtp_layers=1,
            rope_parameters=dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=32, beta_fast=32, beta_slow=1, mscale=0.8, mscale_all_dim=1.0),
        ),
    ),
    # Kimi K2's type and spelling, no groups, MTP that shares embedding and head, an epsilon that differs from the latents'.
    "kimi_k2_mtp": dict(
        mtp="shared", respell=respell_kimi,
        config=DeepseekV3Config(
            **COMMON, **MLA, q_lora_rank=40, n_routed_experts=12, n_shared_experts=1, moe_intermediate_size=32, n_group=1,
            topk_group=1, num_mtp_layers=1, rms_norm_eps=1e-3, routed_scaling_factor=2.827,
            rope_parameters=dict(rope_type="default", rope_theta=50000.0),
        ),
    ),
    # V2 with groups, q_lora, scaled weights, YaRN as its files spell it.
    "deepseek_v2_group": dict(
        respell=respell_plain,
        config=DeepseekV2Config(
            **COMMON, **MLA, q_lora_rank=40, n_routed_experts=12, n_shared_experts=2, moe_intermediate_size=24, n_group=4,
            topk_group=2, topk_method="group_limited_greedy", routed_scaling_factor=4.0,
            rope_parameters=dict(rope_type="yarn", rope_theta=10000.0, factor=8.0, original_max_position_embeddings=16, beta_fast=32, beta_slow=1, mscale=0.707, mscale_all_dim=0.707),
        ),
    ),
    # A dense layer among MoE layers, un-normalised weights, a sliding window, tied embeddings, older spellings.
    "qwen3_moe_old": dict(
        respell=respell_qwen_moe,
        config=Qwen3MoeConfig(
            **COMMON, **GQA, head_dim=24, num_experts=10, num_experts_per_tok=3, moe_intermediate_size=24, norm_topk_prob=False,
            mlp_only_layers=[1], use_sliding_window=True, sliding_window=6, tie_word_embeddings=True,
            rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
        ),
    ),
    # Dense, float16, a window on some layers, YaRN without mscale.
    "qwen3_dense": dict(
        dtype=torch.float16,
        config=Qwen3Config(
            **COMMON, **GQA, head_dim=32, use_sliding_window=True, sliding_window=5,
            layer_types=["full_attention", "sliding_attention", "full_attention"],
            rope_parameters=dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=32),
        ),
    ),
    # Dense, float32, Llama 3's scaling, tied embeddings.
    "llama3": dict(
        dtype=torch.float32, respell=respell_plain,
        config=LlamaConfig(
            **COMMON, **GQA | dict(num_hidden_layers=2), tie_word_embeddings=True,
            rope_parameters=dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32),
        ),
    ),
    # A sliding window on all layers, linear scaling.
    "mixtral_window": dict(
        respell=respell_plain,
        config=MixtralConfig(
            **COMMON, **GQA | dict(intermediate_size=40), num_local_experts=6, num_experts_per_tok=2, sliding_window=7,
            rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=2.0),
        ),
    ),
    # A multimodal folder; chunks, NoPE layers and temperature that prompts of 33 tokens meet; dense layers between.
    "llama4_nested": dict(
        respell=respell_llama4,
        config=Llama4TextConfig(
            **COMMON, **GQA | dict(num_hidden_layers=4, intermediate_size=32), head_dim=16, intermediate_size_mlp=80,
            num_local_experts=6, num_experts_per_tok=1, interleave_moe_layer_step=2, attention_chunk_size=8, floor_scale=4,
            attn_scale=0.3, attn_temperature_tuning=True, no_rope_layers=[1, 1, 1, 0], use_qk_norm=True,
            rope_parameters=dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32),
        ),
    ),
}  # fmt: skip


def main():
    root = pathlib.Path(sys.argv[1])
    wanted = sys.argv[2:] or CASES
    with torch.no_grad():
        for name in wanted:
            make(root, name, CASES[name])


if __name__ == "__main__":
    main()
