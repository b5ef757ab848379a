// How each family's config.json becomes a ModelConfig: the part of model_config.cc that differs by
// family. Called by ParseModelConfig alone.
#pragma once

#include "model/field_reader.h"
#include "model/model_config.h"

namespace moebius::model {

// Reads what is particular to `config.family` (config.model_type is set, too) into `config`; errors
// stay in `fields`.
void ReadFamily(FieldReader& fields, ModelConfig& config);

// rope_scaling + rope_theta, or rope_parameters, into `config.rope`.
void ReadRope(FieldReader& fields, double default_theta, ModelConfig& config);

}  // namespace moebius::model
