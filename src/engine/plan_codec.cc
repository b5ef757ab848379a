#include "engine/plan_codec.h"

#include <array>
#include <cstring>
#include <type_traits>

#include "base/check.h"
#include "base/math.h"
#include "engine/plan_codec_check.h"

namespace moebius::engine {
namespace {

using Slice = PlannedSample::Slice;

constexpr uint64_t kMagic = 0x3130'4e41'4c50'424d;  // "MBPLAN01"
constexpr size_t kAlignment = 8;

enum List : uint8_t {
  kTokens,
  kPositions,
  kKvRows,
  kQueryStart,
  kContextLen,
  kBlockTable,
  kLogitRows,
  kSamples,
  kIds,
  kCounts,
  kMasks,
  kSeenTokens,
  kLogitBias,
  kAllowedMasks,
  kNumLists,
};

struct BiasRecord {
  TokenId token;
  float bias;
};

struct SampleRecord {
  uint64_t seed;
  int64_t position;
  int64_t counts_begin;
  Slice output;
  Slice banned;
  Slice mask;
  // In lists that hold what the requests own.
  Slice seen_tokens;
  Slice logit_bias;
  Slice allowed_mask;
  float temperature;
  float top_p;
  float min_p;
  float repetition_penalty;
  float presence_penalty;
  float frequency_penalty;
  int32_t top_k;
  int32_t num_logprobs;
  TokenId given;
  int32_t seq_idx;
};

struct Header {
  uint64_t magic;
  uint64_t num_bytes;
  int64_t step_id;
  int64_t previous_step;
  int64_t max_blocks;
  int64_t block_size;
  uint64_t has_samples;
  std::array<uint64_t, kNumLists> counts;
};
static_assert(std::is_trivially_copyable_v<Header> && std::is_trivially_copyable_v<SampleRecord>);
static_assert(sizeof(Header) % kAlignment == 0 && sizeof(SampleRecord) % kAlignment == 0);

struct ListKind {
  const char* name;
  size_t element_bytes;
};
constexpr std::array<ListKind, kNumLists> kLists = {{
    {"tokens", sizeof(TokenId)},
    {"positions", sizeof(Position)},
    {"kv_rows", sizeof(int64_t)},
    {"query_start", sizeof(int32_t)},
    {"context_len", sizeof(int32_t)},
    {"block_table", sizeof(int32_t)},
    {"logit_rows", sizeof(int32_t)},
    {"samples", sizeof(SampleRecord)},
    {"ids", sizeof(TokenId)},
    {"counts", sizeof(int32_t)},
    {"masks", sizeof(uint32_t)},
    {"seen_tokens", sizeof(TokenId)},
    {"logit_bias", sizeof(BiasRecord)},
    {"allowed_mask", sizeof(uint32_t)},
}};

constexpr size_t ListBytes(size_t list, uint64_t count) {
  return RoundUp(count * kLists[list].element_bytes, kAlignment);
}

size_t BlockBytes(const Header& header) {
  size_t bytes = sizeof(Header);
  for (size_t list = 0; list < kNumLists; ++list) bytes += ListBytes(list, header.counts[list]);
  return bytes;
}

Header HeaderOf(const StepPlan& plan, bool with_samples) {
  Header header{};
  header.magic = kMagic;
  header.step_id = plan.step_id;
  header.previous_step = plan.previous_step;
  header.max_blocks = plan.max_blocks;
  header.block_size = plan.block_size;
  header.has_samples = with_samples ? 1 : 0;
  auto& counts = header.counts;
  counts[kTokens] = plan.tokens.size();
  counts[kPositions] = plan.positions.size();
  counts[kKvRows] = plan.kv_rows.size();
  counts[kQueryStart] = plan.query_start.size();
  counts[kContextLen] = plan.context_len.size();
  // A plan without sequences may still hold the table of the one before.
  counts[kBlockTable] = plan.context_len.size() * static_cast<size_t>(plan.max_blocks);
  counts[kLogitRows] = plan.logit_rows.size();
  if (with_samples) {
    counts[kSamples] = plan.samples.size();
    counts[kIds] = plan.ids.size();
    counts[kCounts] = plan.counts.size();
    counts[kMasks] = plan.masks.size();
    for (const PlannedSample& sample : plan.samples) {
      counts[kSeenTokens] += sample.row.seen_tokens.size();
      counts[kLogitBias] += sample.row.logit_bias.size();
      counts[kAllowedMasks] += sample.row.allowed_mask.size();
    }
  }
  header.num_bytes = BlockBytes(header);
  return header;
}

class Writer {
 public:
  explicit Writer(std::span<std::byte> block) : block_(block) {}

  template <typename T>
  void Put(std::span<const T> list) {
    static_assert(std::is_trivially_copyable_v<T>);
    if (!list.empty()) std::memcpy(block_.data() + used_, list.data(), list.size_bytes());
    used_ += list.size_bytes();
  }
  template <typename T>
  void Put(const T& value) {
    Put(std::span<const T>(&value, 1));
  }
  // The end of a list.
  void Align() {
    const size_t end = RoundUp(used_, kAlignment);
    std::memset(block_.data() + used_, 0, end - used_);
    used_ = end;
  }
  template <typename T>
  void PutList(const std::vector<T>& list) {
    Put(std::span<const T>(list));
    Align();
  }
  size_t used() const { return used_; }

 private:
  std::span<std::byte> block_;
  size_t used_ = 0;
};

// The next of its kind: `all` counts what came before.
template <typename T>
Slice Take(std::span<T> list, int64_t* all) {
  const Slice slice{*all, static_cast<int64_t>(list.size())};
  *all += slice.count;
  return slice;
}

void PutSamples(const StepPlan& plan, Writer* writer) {
  int64_t num_seen = 0;
  int64_t num_bias = 0;
  int64_t num_allowed = 0;
  for (const PlannedSample& sample : plan.samples) {
    const kernels::SampleRow& row = sample.row;
    writer->Put(SampleRecord{
        .seed = row.seed,
        .position = row.position,
        .counts_begin = sample.counts_begin,
        .output = sample.output,
        .banned = sample.banned,
        .mask = sample.mask,
        .seen_tokens = Take(row.seen_tokens, &num_seen),
        .logit_bias = Take(row.logit_bias, &num_bias),
        .allowed_mask = Take(row.allowed_mask, &num_allowed),
        .temperature = row.temperature,
        .top_p = row.top_p,
        .min_p = row.min_p,
        .repetition_penalty = row.repetition_penalty,
        .presence_penalty = row.presence_penalty,
        .frequency_penalty = row.frequency_penalty,
        .top_k = row.top_k,
        .num_logprobs = row.num_logprobs,
        .given = row.given,
        .seq_idx = sample.seq_idx,
    });
  }
  writer->Align();
  writer->PutList(plan.ids);
  writer->PutList(plan.counts);
  writer->PutList(plan.masks);
  for (const PlannedSample& sample : plan.samples) writer->Put(sample.row.seen_tokens);
  writer->Align();
  for (const PlannedSample& sample : plan.samples) {
    for (const auto& [token, bias] : sample.row.logit_bias) writer->Put(BiasRecord{token, bias});
  }
  writer->Align();
  for (const PlannedSample& sample : plan.samples) writer->Put(sample.row.allowed_mask);
  writer->Align();
}

// Lists of a block whose lengths add up to its size.
class Reader {
 public:
  // After the header; each list in turn.
  static Result<Reader> Open(std::span<const std::byte> block) {
    Reader reader;
    if (block.size() < sizeof(Header)) {
      return CorruptPlan("header", "is cut off: {} bytes, expected {}", block.size(),
                         sizeof(Header));
    }
    std::memcpy(&reader.header_, block.data(), sizeof(Header));
    const Header& header = reader.header_;
    if (header.magic != kMagic) {
      return CorruptPlan("magic", "is {:#x}, expected {:#x}", header.magic, kMagic);
    }
    if (header.num_bytes != block.size()) {
      return CorruptPlan("num_bytes", "is {} in a block of {} bytes", header.num_bytes,
                         block.size());
    }
    if (header.has_samples > 1) {
      return CorruptPlan("has_samples", "is {}, expected 0 or 1", header.has_samples);
    }
    size_t left = block.size() - sizeof(Header);
    for (size_t list = 0; list < kNumLists; ++list) {
      const uint64_t count = header.counts[list];
      if (count > left / kLists[list].element_bytes || ListBytes(list, count) > left) {
        return CorruptPlan(kLists[list].name, "have {} entries, where {} bytes are left", count,
                           left);
      }
      reader.lists_[list] = block.subspan(block.size() - left, count * kLists[list].element_bytes);
      left -= ListBytes(list, count);
    }
    if (left != 0) return CorruptPlan("num_bytes", "is {} more than the lists need", left);
    return reader;
  }

  const Header& header() const { return header_; }
  template <typename T>
  std::vector<T> Copy(List list) const {
    std::vector<T> copy(header_.counts[list]);
    if (!copy.empty()) std::memcpy(copy.data(), lists_[list].data(), lists_[list].size());
    return copy;
  }

 private:
  Header header_{};
  std::array<std::span<const std::byte>, kNumLists> lists_;
};

PlannedSample SampleOf(const SampleRecord& record, const DecodedPlan& decoded) {
  PlannedSample sample;
  sample.seq_idx = record.seq_idx;
  sample.output = record.output;
  sample.counts_begin = record.counts_begin;
  sample.banned = record.banned;
  sample.mask = record.mask;
  kernels::SampleRow& row = sample.row;
  row.temperature = record.temperature;
  row.top_k = record.top_k;
  row.top_p = record.top_p;
  row.min_p = record.min_p;
  row.repetition_penalty = record.repetition_penalty;
  row.presence_penalty = record.presence_penalty;
  row.frequency_penalty = record.frequency_penalty;
  row.seed = record.seed;
  row.position = record.position;
  row.given = record.given;
  row.num_logprobs = record.num_logprobs;
  row.seen_tokens = View(decoded.seen_tokens, record.seen_tokens);
  row.logit_bias = View(decoded.logit_bias, record.logit_bias);
  row.allowed_mask = View(decoded.allowed_masks, record.allowed_mask);
  return sample;
}

Status ReadSamples(const Reader& reader, const PlanLimits& limits, DecodedPlan* decoded) {
  StepPlan& plan = decoded->plan;
  const auto num_samples = static_cast<int64_t>(plan.logit_rows.size());
  const std::vector<SampleRecord> records = reader.Copy<SampleRecord>(kSamples);
  MOEBIUS_TRY(
      CheckCount("samples", records.size(), reader.header().has_samples != 0 ? num_samples : 0));
  plan.samples.resize(plan.logit_rows.size());
  plan.ids = reader.Copy<TokenId>(kIds);
  plan.counts = reader.Copy<int32_t>(kCounts);
  plan.masks = reader.Copy<uint32_t>(kMasks);
  decoded->seen_tokens = reader.Copy<TokenId>(kSeenTokens);
  decoded->allowed_masks = reader.Copy<uint32_t>(kAllowedMasks);
  std::vector<TokenId> biased;
  for (const BiasRecord& record : reader.Copy<BiasRecord>(kLogitBias)) {
    decoded->logit_bias.emplace_back(record.token, record.bias);
    biased.push_back(record.token);
  }
  MOEBIUS_TRY(CheckTokens("logit_bias", biased, limits.vocab_size));
  MOEBIUS_TRY(CheckTokens("seen_tokens", decoded->seen_tokens, limits.vocab_size));
  for (size_t i = 0; i < records.size(); ++i) {
    const SampleRecord& record = records[i];
    MOEBIUS_TRY(CheckSlice("seen_tokens", i, record.seen_tokens, decoded->seen_tokens.size()));
    MOEBIUS_TRY(CheckSlice("logit_bias", i, record.logit_bias, decoded->logit_bias.size()));
    MOEBIUS_TRY(CheckMask("allowed_mask", i, record.allowed_mask, decoded->allowed_masks.size(),
                          limits.vocab_size));
    plan.samples[i] = SampleOf(record, *decoded);
  }
  if (!records.empty()) return CheckSamples(plan, limits);
  return {};
}

}  // namespace

size_t EncodedBytes(const StepPlan& plan, bool with_samples) {
  return HeaderOf(plan, with_samples).num_bytes;
}

void Encode(const StepPlan& plan, std::span<std::byte> block, bool with_samples) {
  const Header header = HeaderOf(plan, with_samples);
  MOEBIUS_CHECK_EQ(block.size(), header.num_bytes);
  Writer writer(block);
  writer.Put(header);
  writer.PutList(plan.tokens);
  writer.PutList(plan.positions);
  writer.PutList(plan.kv_rows);
  writer.PutList(plan.query_start);
  writer.PutList(plan.context_len);
  writer.Put(std::span<const int32_t>(plan.block_table).first(header.counts[kBlockTable]));
  writer.Align();
  writer.PutList(plan.logit_rows);
  if (with_samples) PutSamples(plan, &writer);
  MOEBIUS_CHECK_EQ(writer.used(), block.size());
}

Result<DecodedPlan> Decode(std::span<const std::byte> block, const PlanLimits& limits) {
  MOEBIUS_ASSIGN(const Reader reader, Reader::Open(block));
  DecodedPlan decoded;
  StepPlan& plan = decoded.plan;
  plan.step_id = reader.header().step_id;
  plan.previous_step = reader.header().previous_step;
  plan.max_blocks = reader.header().max_blocks;
  plan.block_size = reader.header().block_size;
  plan.tokens = reader.Copy<TokenId>(kTokens);
  plan.positions = reader.Copy<Position>(kPositions);
  plan.kv_rows = reader.Copy<int64_t>(kKvRows);
  plan.query_start = reader.Copy<int32_t>(kQueryStart);
  plan.context_len = reader.Copy<int32_t>(kContextLen);
  plan.block_table = reader.Copy<int32_t>(kBlockTable);
  plan.logit_rows = reader.Copy<int32_t>(kLogitRows);
  MOEBIUS_TRY(CheckRows(plan, limits));
  MOEBIUS_TRY(ReadSamples(reader, limits, &decoded));
  return decoded;
}

size_t MaxPlanBytes(const PlanLimits& limits) {
  Header header{};
  const auto rows = static_cast<uint64_t>(limits.max_rows);
  const auto seqs = static_cast<uint64_t>(limits.max_seqs);
  for (const List list : {kTokens, kPositions, kKvRows, kLogitRows, kSamples}) {
    header.counts[list] = rows;
  }
  header.counts[kQueryStart] = seqs + 1;
  header.counts[kContextLen] = seqs;
  header.counts[kBlockTable] = seqs * static_cast<uint64_t>(limits.max_blocks);
  return BlockBytes(header);
}

}  // namespace moebius::engine
