"""DeepSeek's fp8 weight format: e4m3 with one float32 scale for each 128x128 block (w = fp8 * scale_inv)."""

import torch
import torch.nn.functional as F

BLOCK = 128
E4M3_MAX = 448.0


def _blocks(w):
    """[..., R, C] -> [..., R/128, 128, C/128, 128], zero-padded."""
    rows, cols = w.shape[-2:]
    pad_r, pad_c = -rows % BLOCK, -cols % BLOCK
    if pad_r or pad_c:
        w = F.pad(w, (0, pad_c, 0, pad_r))
    return w.reshape(*w.shape[:-2], (rows + pad_r) // BLOCK, BLOCK, (cols + pad_c) // BLOCK, BLOCK)


def block_scales(w):
    """scale_inv of each block: amax / 448 (1 for an all-zero block)."""
    amax = _blocks(w).abs().amax(dim=(-3, -1))
    return torch.where(amax > 0, amax / E4M3_MAX, torch.ones_like(amax))


def expand_scales(scales, rows, cols):
    full = scales.repeat_interleave(BLOCK, -2).repeat_interleave(BLOCK, -1)
    return full[..., :rows, :cols]


def quantise(w):
    """float32 [..., R, C] -> (float8_e4m3fn of the same shape, float32 scale_inv per block)."""
    scales = block_scales(w)
    scaled = w / expand_scales(scales, *w.shape[-2:])
    return scaled.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn), scales


def dequantise(q, scales):
    return q.to(torch.float32) * expand_scales(scales, *q.shape[-2:])


def fake_quantise(w, strength):
    """w itself at strength 0, its fp8 rounding at strength 1; the gradient passes straight through."""
    with torch.no_grad():
        error = dequantise(*quantise(w)) - w
    return w + strength * error
