// What a kernel is given on a device. Plain C++: whoever calls kernels includes no CUDA header.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/canonical.h"
#include "core/operand.h"

namespace pymerge::cuda {

// Tensors in the memory of the current device, all of one length.
struct Inputs {
  std::vector<Operand> tensors;
  Operand base{nullptr, DType::kF32};
  bool has_base = false;
  std::int64_t count = 0;
  Compute compute = Compute::kFloat32;

  int size() const { return static_cast<int>(tensors.size()); }
};

// Where a combine writes; as long as the inputs.
struct Output {
  void* data;
  DType dtype;
};

// Whether every product of two values is exact in float32.
inline bool is_narrow(const Inputs& inputs) {
  return !inputs.has_base && inputs.compute == Compute::kFloat32 &&
         std::all_of(inputs.tensors.begin(), inputs.tensors.end(),
                     [](const Operand& tensor) { return item_size(tensor.dtype) == 2; });
}

}  // namespace pymerge::cuda
