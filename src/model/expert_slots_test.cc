// Experts that change slots while a model lives: it then is, byte for byte and bit for bit, the
// model that is loaded with them in those slots.
#include "model/expert_slots.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "model/load.h"
#include "model/testing/checkpoint_writer.h"
#include "model/testing/model_driver.h"
#include "model/testing/random_models.h"
#include "moe/migrate/expert_checksum.h"

namespace moebius::model {
namespace {

constexpr int kNumStaging = 5;
using Change = moe::ExpertStore::Change;
using Bytes = std::vector<std::byte>;

// As a GPU does it whose steps are late: what is queued is done before whatever comes next, and not
// sooner.
class LateCopies final : public moe::ExpertCopies {
 public:
  void Copy(void* to, const void* from, size_t num_bytes) override {
    RunQueue();
    if (num_bytes > 0) std::memcpy(to, from, num_bytes);
  }
  void Wait() override {}
  uint64_t ChecksumOf(std::span<const std::byte> /*bytes*/) override { return 0; }
  void Queue(void* to, const void* from, size_t num_bytes) override {
    queue_.push_back({to, from, num_bytes});
  }
  void EndOfQueue() override { ++num_changes_; }
  Status status() const override { return {}; }

  void RunQueue() {
    EXPECT_EQ(num_changes_ > 0, !queue_.empty());
    for (const Queued& q : queue_) {
      if (q.num_bytes > 0) std::memcpy(q.to, q.from, q.num_bytes);
    }
    queue_.clear();
    num_changes_ = 0;
  }

 private:
  struct Queued {
    void* to;
    const void* from;
    size_t num_bytes;
  };
  std::vector<Queued> queue_;
  int num_changes_ = 0;
};

// A model on one rank with slots to spare.
class Slotted {
 public:
  Slotted(LoadOptions options, const moe::SlotAssignment& slots, LateCopies* copies = nullptr)
      : slots_(slots), copies_(copies) {
    options.backend = kernels::AvailableBackends().front();
    options.mtp = false;
    options.show_progress = false;
    options.shard.slots = slots;
    options.shard.num_staging = kNumStaging;
    options.shard.copies = copies;
    auto model = LoadModel(options, *pool_);
    EXPECT_TRUE(model) << model.error().message();
    if (!model) return;
    model_ = std::move(*model);
    driver_ = std::make_unique<ModelDriver>(*model_, *options.backend, *pool_);
  }
  ExpertSlots& store() { return *model_->expert_store(); }
  explicit operator bool() const { return model_ != nullptr; }

  // Of a prompt that is computed anew.
  std::vector<float> Logits() {
    std::vector<TokenId> tokens;
    for (int i = 0; i < 14; ++i) tokens.push_back((i * i * 5 + i * 37) % 60);
    if (copies_ != nullptr) copies_->RunQueue();
    std::vector<float> logits = driver_->Run({{0, tokens}});
    driver_->Forget(0);
    return logits;
  }
  Bytes Slot(int layer, int slot) {
    Bytes bytes(store().ExpertBytes(layer));
    store().Read(layer, slot, 0, bytes);
    return bytes;
  }
  std::vector<Bytes> AllSlots() {
    std::vector<Bytes> all;
    for (int layer = 0; store().ExpertBytes(layer) > 0; ++layer) {
      for (int slot = 0; slot < slots_.num_slots; ++slot) all.push_back(Slot(layer, slot));
    }
    return all;
  }

 private:
  const moe::SlotAssignment slots_;
  LateCopies* const copies_;
  std::unique_ptr<platform::ThreadPool> pool_ = platform::ThreadPool::Create({0});
  std::unique_ptr<Model> model_;
  std::unique_ptr<ModelDriver> driver_;
};

// Layer by layer what linear slots hold, and the same with other experts in five of them.
struct Move {
  moe::SlotAssignment before;
  moe::SlotAssignment after;
};
Move MoveOf(const ModelConfig& config) {
  const int64_t num_experts = config.moe.num_experts;
  const auto last = static_cast<size_t>(num_experts) + 1;
  const std::vector<int32_t> linear = moe::LinearSlots(num_experts, 1, num_experts + 2);
  Move move;
  for (const LayerConfig& layer : config.layers) {
    if (layer.moe) move.before.layers.push_back(linear);
  }
  move.before.num_slots = num_experts + 2;
  move.after = move.before;
  // Two change places, a second copy becomes another expert's.
  std::vector<int32_t>& first = move.after.layers.front();
  std::swap(first[0], first[3]);
  first[last] = 2;
  std::vector<int32_t>& end = move.after.layers.back();
  std::swap(end[1], end[last - 1]);
  return move;
}

// As peers do it: in pieces, of which some have bytes of both matrices.
void CopySlot(moe::ExpertStore& store, int layer, int from_slot, int staging) {
  constexpr size_t kPiece = 1000;
  const size_t num_bytes = store.ExpertBytes(layer);
  for (size_t offset = 0; offset < num_bytes; offset += kPiece) {
    Bytes piece(std::min(kPiece, num_bytes - offset));
    store.Read(layer, from_slot, offset, piece);
    store.Write(staging, offset, piece);
  }
}

uint64_t ChecksumOf(std::span<const std::byte> bytes) {
  moe::ExpertChecksum checksum;
  checksum.Add(bytes);
  return checksum.value();
}

void CopyFromCheckpoint(moe::ExpertStore& store, int layer, int expert, int staging) {
  const size_t num_bytes = store.ExpertBytes(layer);
  for (size_t offset = 0; offset < num_bytes;) {
    const auto stored = store.FromCheckpoint(layer, ExpertId(expert), offset);
    ASSERT_TRUE(stored) << stored.error().message();
    ASSERT_FALSE(stored->bytes.empty());
    store.Write(staging, offset, stored->bytes);
    offset += stored->bytes.size();
  }
}

// Fetches what the move needs, from its own slots or the checkpoint, and prepares it.
void PrepareMove(moe::ExpertStore& store, const Move& move, bool from_checkpoint) {
  std::vector<Change> changes;
  int staging = 0;
  for (size_t l = 0; l < move.after.layers.size(); ++l) {
    const auto layer = static_cast<int>(l);
    const std::vector<int32_t>& before = move.before.layers[l];
    const std::vector<int32_t>& after = move.after.layers[l];
    Change change{.layer = layer, .experts = after, .slots = {}};
    for (size_t slot = 0; slot < after.size(); ++slot) {
      if (after[slot] == before[slot]) continue;
      if (from_checkpoint) {
        CopyFromCheckpoint(store, layer, after[slot], staging);
      } else {
        CopySlot(store, layer,
                 static_cast<int>(std::ranges::find(before, after[slot]) - before.begin()),
                 staging);
      }
      change.slots.push_back({static_cast<int>(slot), staging++});
    }
    changes.push_back(std::move(change));
  }
  EXPECT_EQ(staging, kNumStaging);
  const Status prepared = store.Prepare(std::move(changes));
  ASSERT_TRUE(prepared) << prepared.error().message();
}

void ExpectMoves(const LoadOptions& options, LateCopies* copies = nullptr) {
  const Move move = MoveOf(*LoadConfig(options));
  Slotted model(options, move.before, copies);
  Slotted other(options, move.after);
  ASSERT_TRUE(model && other);
  const std::vector<Bytes> before = model.AllSlots();
  const std::vector<Bytes> after = other.AllSlots();
  const std::vector<float> logits = model.Logits();
  ASSERT_NE(before, after);
  EXPECT_EQ(other.Logits(), logits);

  for (const bool from_checkpoint : {false, true}) {
    SCOPED_TRACE(from_checkpoint);
    PrepareMove(model.store(), move, from_checkpoint);
    EXPECT_EQ(model.AllSlots(), before) << "nothing shows before the flip";
    EXPECT_EQ(model.Logits(), logits);
    model.store().Discard();
    model.store().Flip();
    EXPECT_EQ(model.AllSlots(), before) << "there was nothing to flip to";

    PrepareMove(model.store(), move, from_checkpoint);
    model.store().Flip();
    EXPECT_EQ(model.AllSlots(), after);
    EXPECT_EQ(model.Logits(), other.Logits());
    PrepareMove(model.store(), {move.after, move.before}, from_checkpoint);
    model.store().Flip();
    EXPECT_EQ(model.AllSlots(), before);
    EXPECT_EQ(model.Logits(), logits);
  }
}

LoadOptions Golden(const std::string& name, DTypeChoice dtype = DTypeChoice::kAuto) {
  LoadOptions options;
  options.folder = MOEBIUS_SOURCE_DIR "/tests/golden/" + name;
  options.dtype = dtype;
  return options;
}

TEST(ExpertSlots, AMovedModelIsTheOneLoadedSo) {
  for (const char* name :
       {"deepseek_v3", "deepseek_v3_fp8", "llama4_nested", "qwen3_moe_old", "mixtral_window"}) {
    for (const DTypeChoice dtype : {DTypeChoice::kFloat32, DTypeChoice::kBFloat16}) {
      SCOPED_TRACE(name);
      ExpectMoves(Golden(name, dtype));
    }
  }
}

TEST(ExpertSlots, WhereStepsAreLateContentsMove) {
  for (const char* name : {"deepseek_v3_fp8", "qwen3_moe_old", "mixtral_window"}) {
    SCOPED_TRACE(name);
    LateCopies copies;
    ExpectMoves(Golden(name), &copies);
  }
}

TEST(ExpertSlots, OfRandomWeightsToo) {
  for (const RandomModel& random : kRandomModels) {
    if (std::string(random.name) == "llama") continue;
    SCOPED_TRACE(random.name);
    const TempFolder folder;
    folder.Write("config.json", random.config);
    LoadOptions options;
    options.folder = folder.path();
    options.load_format = LoadFormat::kDummy;
    ExpectMoves(options);
  }
}

// The test above would not see bytes that nobody computes from.
TEST(ExpertSlots, WrongBytesAreAnotherModel) {
  const LoadOptions options = Golden("deepseek_v3");
  const Move move = MoveOf(*LoadConfig(options));
  Slotted model(options, move.before);
  const std::vector<float> logits = model.Logits();
  const std::vector<Bytes> before = model.AllSlots();
  CopySlot(model.store(), 0, 1, 0);
  CopySlot(model.store(), 0, 0, 1);
  const Change change{.layer = 0,
                      .experts = move.before.layers[0],
                      .slots = {{.local_slot = 0, .staging = 0}, {.local_slot = 1, .staging = 1}}};
  ASSERT_TRUE(model.store().Prepare({change}));
  model.store().Flip();
  EXPECT_NE(model.Logits(), logits);
  // What the slots had is in the staging slots of the same numbers.
  ASSERT_TRUE(model.store().Prepare({change}));
  model.store().Flip();
  EXPECT_EQ(model.AllSlots(), before);
  EXPECT_EQ(model.Logits(), logits);
}

TEST(ExpertSlots, ThePoolAndTheCheckpointHaveWhatSlotsHave) {
  const LoadOptions options = Golden("deepseek_v3_fp8");
  const moe::SlotAssignment slots = MoveOf(*LoadConfig(options)).before;
  Slotted model(options, slots);
  ExpertSlots& store = model.store();
  EXPECT_EQ(store.FromPool(0, ExpertId(0), 0).error().code(), ErrorCode::kUnsupported);
  const int num_experts = static_cast<int>(LoadConfig(options)->moe.num_experts);
  // The other half is of a rank that is not there, or no longer.
  moe::HostPoolOptions pool_options;
  pool_options.base = fmt::format("moebius_slots_{}", getpid());
  pool_options.num_experts = num_experts;
  pool_options.num_local_ranks = 2;
  for (int layer = 0; store.ExpertBytes(layer) > 0; ++layer) {
    EXPECT_EQ(store.NumSlots(layer), slots.num_slots);
    pool_options.expert_bytes.push_back(store.ExpertBytes(layer));
  }
  EXPECT_EQ(store.NumSlots(static_cast<int>(slots.layers.size())), 0);
  auto pool = moe::HostPool::Create(pool_options);
  ASSERT_TRUE(pool) << pool.error().message();
  const Status used = store.UsePool(std::move(*pool));
  ASSERT_TRUE(used) << used.error().message();

  constexpr int kLayer = 1;
  const size_t num_bytes = store.ExpertBytes(kLayer);
  for (int expert = 0; expert < num_experts; ++expert) {
    const Bytes slot = model.Slot(kLayer, expert);  // in order
    CopyFromCheckpoint(store, kLayer, expert, 0);
    Bytes staged(num_bytes);
    store.ReadStaging(0, 0, staged);
    EXPECT_EQ(staged, slot);
    const auto stored = store.FromPool(kLayer, ExpertId(expert), 0);
    if (expert >= num_experts / 2) {
      ASSERT_FALSE(stored);
      EXPECT_EQ(stored.error().code(), ErrorCode::kNotFound);
      continue;
    }
    ASSERT_TRUE(stored) << stored.error().message();
    EXPECT_TRUE(std::ranges::equal(stored->bytes, slot));
    EXPECT_EQ(stored->checksum, ChecksumOf(slot));
    EXPECT_EQ(store.FromPool(kLayer, ExpertId(expert), 100)->bytes.data(),
              stored->bytes.data() + 100);
  }
}

TEST(ExpertSlots, WhatCannotBeIsRefused) {
  const LoadOptions options = Golden("qwen3_moe_old");
  const Move move = MoveOf(*LoadConfig(options));
  Slotted model(options, move.before);
  const std::vector<Bytes> before = model.AllSlots();
  moe::ExpertStore& store = model.store();
  EXPECT_EQ(store.num_staging(), kNumStaging);
  const auto num_layers = static_cast<int>(move.before.layers.size());
  EXPECT_GT(store.ExpertBytes(num_layers - 1), 0U);
  EXPECT_EQ(store.ExpertBytes(num_layers), 0U) << "another rank's";

  std::vector<int32_t> without_first = move.before.layers[0];
  std::ranges::replace(without_first, 0, 1);
  const Status lost = store.Prepare({{.layer = 0, .experts = without_first, .slots = {}}});
  ASSERT_FALSE(lost);
  EXPECT_NE(lost.error().message().find("expert 0"), std::string::npos) << lost.error().message();
  store.Flip();
  EXPECT_EQ(model.AllSlots(), before);
  // Layers of other ranks are their business.
  EXPECT_TRUE(store.Prepare({{.layer = num_layers, .experts = {}, .slots = {}}}));
  store.Flip();
  EXPECT_EQ(model.AllSlots(), before);
}

TEST(ExpertSlots, LayersThatDifferAreRefused) {
  MoeLayer layers[2];
  layers[1].index = 1;
  for (MoeLayer& layer : layers) {
    layer.gate_up.push_back({.gated = true, .n = 32, .k = 64});
    layer.down.push_back({.n = 64, .k = 32});
  }
  const auto create = [&] { return ExpertSlots::Create({{&layers[0], {}}, {&layers[1], {}}}, {}); };
  EXPECT_TRUE(create());
  layers[1].down[0].format = kernels::WeightFormat::kF32;
  const auto of_format = create();
  ASSERT_FALSE(of_format);
  EXPECT_EQ(of_format.error().code(), ErrorCode::kUnsupported);
  EXPECT_EQ(of_format.error().message(),
            "experts of MoE layer 1 are float32 of 64 x 32, those of layer 0 bfloat16 of 64 x 32, "
            "expected all alike where they move between slots while serving "
            "(layer_updates_per_iter 0 leaves them)");
  layers[1] = layers[0];
  layers[1].gate_up[0].n = 48;
  EXPECT_FALSE(create());
}

}  // namespace
}  // namespace moebius::model
