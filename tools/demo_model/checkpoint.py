"""The exported folder: DeepSeek-V3's tensor names, fp8 blocks, two shards with an index; writing and reading it."""

import json
import os

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from config import ModelConfig
from model import DemoModel, Mlp
from quant import dequantise, quantise

GENERATION_CONFIG = {"bos_token_id": None, "eos_token_id": [2, 0], "pad_token_id": 0, "do_sample": False}


def _attention(prefix, a):
    for name in ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"):
        yield f"{prefix}.{name}.weight", getattr(a, name), None
    for name in ("q_a_layernorm", "kv_a_layernorm"):
        yield f"{prefix}.{name}.weight", getattr(a, name).weight, None


def _mlp(prefix, mlp):
    if isinstance(mlp, Mlp):
        for name in ("gate_proj", "up_proj", "down_proj"):
            yield f"{prefix}.{name}.weight", getattr(mlp, name), None
        return
    yield f"{prefix}.gate.weight", mlp.gate, None
    yield f"{prefix}.gate.e_score_correction_bias", mlp.e_score_correction_bias, None
    for e in range(mlp.c.experts):
        for name in ("gate_proj", "up_proj", "down_proj"):
            yield f"{prefix}.experts.{e}.{name}.weight", getattr(mlp, name), e
    yield from _mlp(f"{prefix}.shared_experts", mlp.shared_experts)


def _block(prefix, b):
    yield f"{prefix}.input_layernorm.weight", b.input_layernorm.weight, None
    yield from _attention(f"{prefix}.self_attn", b.self_attn)
    yield f"{prefix}.post_attention_layernorm.weight", b.post_attention_layernorm.weight, None
    yield from _mlp(f"{prefix}.mlp", b.mlp)


def named_parts(model):
    """(name, Weight module | plain tensor, expert index | None) of every tensor, in checkpoint order."""
    yield "model.embed_tokens.weight", model.embed, None
    for i, block in enumerate(model.blocks):
        yield from _block(f"model.layers.{i}", block)
    yield "model.norm.weight", model.norm.weight, None
    prefix, m = f"model.layers.{model.c.layers}", model.mtp
    for name, part in (("enorm", m.enorm.weight), ("hnorm", m.hnorm.weight)):
        yield f"{prefix}.{name}.weight", part, None
    yield f"{prefix}.eh_proj.weight", m.eh_proj, None
    yield from _block(prefix, m.block)
    yield f"{prefix}.shared_head.norm.weight", m.shared_head_norm.weight, None


def _matrix(name, part, expert):
    """The float32 [out, in] matrix of a Weight; a routed down_proj is kept transposed in the model."""
    w = part.weight.detach()
    if expert is None:
        return w
    return w[expert].T if "down_proj" in name else w[expert]


def tensors_of(model):
    out = {}
    for name, part, expert in named_parts(model):
        if isinstance(part, torch.Tensor):
            keep = torch.float32 if "correction_bias" in name else torch.bfloat16
            out[name] = part.detach().to(keep).cpu().contiguous()
        else:
            values, scales = quantise(_matrix(name, part, expert).float())
            out[name] = values.cpu().contiguous()
            out[name.replace(".weight", ".weight_scale_inv")] = scales.cpu().contiguous()
    return out


def write(model, folder, max_shard=12_500_000):
    """Writes shards, index, config.json and generation_config.json."""
    os.makedirs(folder, exist_ok=True)
    tensors = tensors_of(model)
    shards, size = [{}], 0
    for name, t in tensors.items():
        if size + t.nbytes > max_shard:
            shards.append({})
            size = 0
        shards[-1][name] = t
        size += t.nbytes
    files = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for file, shard in zip(files, shards):
        save_file(shard, f"{folder}/{file}", metadata={"format": "pt"})
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())},
             "weight_map": {name: file for file, shard in zip(files, shards) for name in shard}}
    for name, value in (("model.safetensors.index.json", index), ("config.json", model.c.to_hf()),
                        ("generation_config.json", GENERATION_CONFIG)):
        with open(f"{folder}/{name}", "w", encoding="utf-8") as f:
            json.dump(value, f, indent=2)
            f.write("\n")
    return files


def read_tensors(folder):
    """All tensors of the folder, fp8 ones de-quantised to float32 (their scales dropped)."""
    with open(f"{folder}/model.safetensors.index.json", encoding="utf-8") as f:
        weight_map = json.load(f)["weight_map"]
    raw = {}
    for file in sorted(set(weight_map.values())):
        with safe_open(f"{folder}/{file}", "pt") as shard:
            raw.update({name: shard.get_tensor(name) for name in shard.keys()})
    out = {}
    for name, t in raw.items():
        if name.endswith("_scale_inv"):
            continue
        scales = raw.get(name + "_scale_inv")
        out[name] = t if scales is None else dequantise(t, scales)
    return out


def _values(model, folder, device):
    """(part, value) of every tensor of the model: routed experts stacked, de-quantised float32."""
    tensors, stacks = read_tensors(folder), {}
    for name, part, expert in named_parts(model):
        value = tensors.pop(name).to(device).float()
        if expert is None:
            yield part, value
        else:
            stacks.setdefault(part, []).append(value.T if "down_proj" in name else value)
    if tensors:
        raise SystemExit(f"{folder}: unknown tensors {sorted(tensors)[:3]}")
    for part, values in stacks.items():
        yield part, torch.stack(values)


@torch.no_grad()
def read(folder, device="cpu", dtype=torch.float32):
    """A model frozen at the de-quantised values, computing in `dtype`."""
    model = DemoModel(ModelConfig(), dtype).to(device).eval()
    for part, value in _values(model, folder, device):
        if isinstance(part, torch.Tensor):
            part.copy_(value)
        else:
            part.freeze(value.to(dtype).contiguous())
    return model


@torch.no_grad()
def resume(model, folder):
    """Sets the masters of a model in training to the folder's values."""
    for part, value in _values(model, folder, model.embed.device):
        (part if isinstance(part, torch.Tensor) else part.weight).copy_(value)
