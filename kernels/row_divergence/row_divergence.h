// KL(softmax(X) + 1e-8 || softmax(B) + 1e-8) row by row. Contract: spec.py.
#pragma once

#include "common/canonical.h"
#include "common/isa_symbols.h"
#include "core/operand.h"

namespace pymerge {

// Elements of a segment at most: what is kept of one fits in the second-level cache.
inline constexpr std::int64_t kRowSegment = 32 * kBlock;
// What the near way can do: |X - B| and |B| at most.
inline constexpr float kNearMove = 0x1p-5f;
inline constexpr float kNearSize = 4.0f;
inline constexpr float kNearHalved = 0.5f;

// What is known of one row, by the near way.
struct NearRow {
  float move = 0;  // largest |X - B|
  float size = 0;  // largest |B|
  double mass = 0;
  double shift = 0;
  double divergence = 0;
};

// By the far way: of the tensor's row [0] and of the base's [1].
struct FarRow {
  double greatest[2];
  double mass[2] = {0, 0};  // sums of e^(x - greatest)
  double divergence = 0;
};

// Passes over a row, each in order of the elements; a segment of it starts a multiple of kBlock
// elements after the row does, and holds kRowSegment at most. Each pass needs the one before to be
// over.
struct RowDivergenceKernel {
  // Fills `kept` ([2][kRowSegment]) with e^B, by halving B so often, and e^(X - B) - 1, up to the
  // segment's last whole set of lanes. Where `row` does not turn out near, they mean nothing.
  void (*near_mass)(const Operand* sides, Range segment, int halvings, NearRow& row, float* kept,
                    void* scratch);
  // Of the last segment that was kept.
  void (*near_divergence)(const float* kept, std::int64_t count, NearRow& row);
  void (*greatest)(const Operand* sides, Range segment, FarRow& row, void* scratch);
  void (*mass)(const Operand* sides, Range segment, FarRow& row, void* scratch);
  void (*divergence)(const Operand* sides, Range segment, FarRow& row, void* scratch);
  std::size_t scratch_bytes;
};

PYMERGE_DECLARE_LEVELS(RowDivergenceKernel, row_divergence);

}  // namespace pymerge
