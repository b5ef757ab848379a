#include "kernels/tuning/attention_form.h"

#include <bit>

namespace moebius::kernels {

AttentionForm ChooseAttentionForm(const AttentionShape& s) {
  if (s.act != DType::kBF16) return AttentionForm::kAny;
  if (s.mla) {
    const bool heads_fit =
        s.num_heads > 0 && (s.num_heads % 64 == 0 || (s.num_heads < 64 && s.num_heads % 8 == 0));
    const bool blocks_fit =
        s.block_size >= 8 && std::has_single_bit(static_cast<uint64_t>(s.block_size));
    const bool widths_fit = s.head_dim == 576 && s.v_head_dim == 512;
    return heads_fit && blocks_fit && widths_fit ? AttentionForm::kMla : AttentionForm::kAny;
  }
  const bool widths_fit =
      s.head_dim == s.v_head_dim && (s.head_dim == 64 || s.head_dim == 128 || s.head_dim == 256);
  return widths_fit ? AttentionForm::kGqa : AttentionForm::kAny;
}

}  // namespace moebius::kernels
