// How kernels are launched, and what their launches are made of: parameters in one structure that
// travels with the launch, tables of any length in it, elements dealt to threads.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/cuda/elements.cuh"
#include "common/cuda/inputs.h"
#include "core/error.h"
#include "runtime/device.h"

namespace pymerge::cuda {

inline constexpr int kThreads = 256;
inline constexpr int kWarp = 32;
inline constexpr unsigned kWholeWarp = 0xffffffffu;

// Blocks of a launch.
struct Grid {
  std::int64_t x;
  std::int64_t y = 1;
};

// Runs a kernel of one structure on the stream; no blocks, no launch.
template <typename Params>
void launch(const Stream& stream, void (*kernel)(Params), Grid grid, int threads, Params params,
            std::size_t shared = 0) {
  if (grid.x == 0 || grid.y == 0) return;
  if (grid.x > INT32_MAX || grid.y > UINT16_MAX) {
    throw Error(ErrorCode::kInternal, "a launch of more blocks than a device takes");
  }
  void* arguments[] = {&params};
  const dim3 blocks{static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), 1};
  const dim3 each{static_cast<unsigned>(threads), 1, 1};
  stream.check(cudaLaunchKernel(kernel, blocks, each, arguments, shared,
                                static_cast<cudaStream_t>(stream.handle())),
               "cudaLaunchKernel");
}

// The block's dynamic shared memory.
template <typename T>
__device__ __forceinline__ T* shared_memory() {
#ifdef PYMERGE_EMULATED_CUDA
  return static_cast<T*>(cuda_shared_memory());
#else
  extern __shared__ __align__(16) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
#endif
}

// A number for each of any number of models: those of the first travel with the launch.
template <typename T>
struct Table {
  static constexpr int kFew = 16;
  T few[kFew];
  const T* more;
  __device__ __forceinline__ const T& operator[](int i) const {
    return i < kFew ? few[i] : more[i - kFew];
  }
};

// A table and the memory for what does not travel with it; to be kept until after the launch.
template <typename T>
class HostTable {
 public:
  HostTable(const Stream& stream, const std::vector<T>& values)
      : rest_(stream, std::vector<T>(values.begin() + few(values), values.end())) {
    std::copy(values.begin(), values.begin() + few(values), table_.few);
    table_.more = rest_.data();
  }
  const Table<T>& get() const { return table_; }

 private:
  static std::ptrdiff_t few(const std::vector<T>& values) {
    return std::min<std::ptrdiff_t>(static_cast<std::ptrdiff_t>(values.size()), Table<T>::kFew);
  }
  DeviceArray<T> rest_;
  Table<T> table_{};
};

inline Source source_of(const Operand& tensor) { return {tensor.data, tensor.dtype}; }

inline std::vector<Source> sources_of(const Inputs& inputs) {
  std::vector<Source> sources;
  for (const Operand& tensor : inputs.tensors) sources.push_back(source_of(tensor));
  return sources;
}

inline bool is_aligned(const void* data) {
  return reinterpret_cast<std::uintptr_t>(data) % sizeof(uint4) == 0;
}

// Whether all inputs can be read by vectors.
inline bool is_aligned(const Inputs& inputs) {
  return std::all_of(inputs.tensors.begin(), inputs.tensors.end(),
                     [](const Operand& tensor) { return is_aligned(tensor.data); }) &&
         (!inputs.has_base || is_aligned(inputs.base.data));
}

// Numbers of the recipe, each rounded once to the compute type.
template <typename Real>
std::vector<Real> to_reals(const std::vector<double>& numbers) {
  std::vector<Real> reals;
  reals.reserve(numbers.size());
  for (const double number : numbers) reals.push_back(static_cast<Real>(number));
  return reals;
}

inline std::int64_t divide_up(std::int64_t count, std::int64_t size) {
  return (count + size - 1) / size;
}

// Calls body(Format{}) with what the inputs are of. Each format costs compiling every kernel once
// more: kernels that few methods need have `few` of them, and read float16 and float32 as mixed
// inputs.
template <bool few = false, typename Body>
void with_format(const Inputs& inputs, const Body& body) {
  if (inputs.compute == Compute::kFloat64) return body(Mixed<double>{});
  const DType dtype = inputs.tensors[0].dtype;
  const auto same = [&](const Operand& tensor) { return tensor.dtype == dtype; };
  if (std::all_of(inputs.tensors.begin(), inputs.tensors.end(), same) &&
      (!inputs.has_base || same(inputs.base))) {
    if (dtype == DType::kBF16) return body(Same<DType::kBF16>{});
    if constexpr (!few) {
      if (dtype == DType::kF16) return body(Same<DType::kF16>{});
      if (dtype == DType::kF32) return body(Same<DType::kF32>{});
    }
  }
  body(Mixed<float>{});
}

template <typename Format>
inline constexpr bool kIsMixed = false;
template <typename Real>
inline constexpr bool kIsMixed<Mixed<Real>> = true;

}  // namespace pymerge::cuda
