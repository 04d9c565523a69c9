// The kernels on small tensors, for whoever watches them: a sanitizer. Answers are compared
// elsewhere.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "common/cuda/inputs.h"
#include "runtime/device.h"

namespace pymerge::cuda::test {

// Around the edges of lanes, vectors, blocks and tiles of scans. Bounds differ by length and dtype;
// who waits for whom does not, and ThreadSanitizer takes a hundred times as long.
#if defined(__SANITIZE_THREAD__)
inline const std::vector<std::int64_t> kLengths = {4099};
inline const std::vector<DType> kTypes = {DType::kBF16};
#else
inline const std::vector<std::int64_t> kLengths = {0, 33, 4099};
inline const std::vector<DType> kTypes = {DType::kBF16, DType::kF32, DType::kF64};
#endif

// Tensors of exactly so many bytes, so that nothing is readable behind them.
class Tensors {
 public:
  Tensors(DType dtype, std::int64_t count, int models) : dtype_(dtype), count_(count) {
    std::uint64_t state = 1;
    for (int i = 0; i <= models; ++i) {
      std::vector<std::byte> bytes(static_cast<std::size_t>(count * item_size(dtype)));
      for (std::byte& byte : bytes) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        // Exponents of ordinary numbers, whatever the dtype.
        byte = static_cast<std::byte>(state >> 57) | std::byte{0x10};
      }
      bytes_.push_back(std::move(bytes));
    }
    out_.resize(static_cast<std::size_t>(count * item_size(dtype)));
  }

  // The first `models` around the last, if there is a base.
  Inputs inputs(int models, bool base) const {
    Inputs inputs;
    for (int i = 0; i < models; ++i) inputs.tensors.push_back({at(i), dtype_});
    if (base) inputs.base = {bytes_.back().data(), dtype_};
    inputs.has_base = base;
    inputs.count = count_;
    inputs.compute = dtype_ == DType::kF64 ? Compute::kFloat64 : Compute::kFloat32;
    return inputs;
  }
  Output out() { return {out_.data(), dtype_}; }

 private:
  const void* at(int i) const { return bytes_[static_cast<std::size_t>(i)].data(); }
  const DType dtype_;
  const std::int64_t count_;
  std::vector<std::vector<std::byte>> bytes_;
  std::vector<std::byte> out_;
};

// Calls body(tensors, length) for every length and a few dtypes.
template <typename Body>
void for_tensors(int models, const Body& body) {
  for (const DType dtype : kTypes) {
    for (const std::int64_t length : kLengths) {
      Tensors tensors(dtype, length, models);
      body(tensors, length);
    }
  }
}

// A family of kernels each.
void run_span();
void run_pointwise();
void run_select();
void run_tasks();

}  // namespace pymerge::cuda::test
