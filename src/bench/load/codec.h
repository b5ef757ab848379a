// Who turns prompts into tokens and back: a tokenizer folder on this machine, or the server itself.
// Made and used by the thread that makes the data set.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "base/result.h"
#include "bench/load/client.h"
#include "bench/load/dataset.h"

namespace moebius::load {

// Reads FOLDER/tokenizer.json.
Result<std::unique_ptr<PromptCodec>> OpenTokenizerCodec(const std::filesystem::path& folder);

// Asks POST /tokenize and /detokenize as vLLM has them. An error where the server has neither.
Result<std::unique_ptr<PromptCodec>> OpenServerCodec(LoadClient& client, const std::string& model);

// Token ids from 0 to `vocab_size` - 1, of which no text is known.
std::unique_ptr<PromptCodec> MakeIdCodec(int64_t vocab_size);

}  // namespace moebius::load
