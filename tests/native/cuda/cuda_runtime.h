// CUDA as far as pymerge's kernels use it, for a C++ compiler: the kernels' own sources run on a
// machine without a GPU, and under sanitizers. Found in place of the toolkit's header of this name.
// Device memory is memory, filled with rubbish, as is shared memory; blocks run one after the
// other.
#pragma once

#define PYMERGE_EMULATED_CUDA 1

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "fibers.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
// One for all blocks, since they run one after the other.
#define __shared__ static

struct dim3 {
  unsigned x = 1;
  unsigned y = 1;
  unsigned z = 1;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) ulonglong2 {
  unsigned long long x, y;
};

// What a thread may ask of where it is.
struct CudaPlace {
  dim3 thread, block, threads, blocks;
};
inline thread_local CudaPlace cuda_place;
// A thread's own number is the fiber's: others change between its steps.
inline unsigned cuda_thread() { return pymerge::emulated::current_thread(); }
#define threadIdx (dim3{cuda_thread(), 0, 0})
#define blockIdx (cuda_place.block)
#define blockDim (cuda_place.threads)
#define gridDim (cuda_place.blocks)

// Host side.
using cudaError_t = int;
inline constexpr cudaError_t cudaSuccess = 0;
inline constexpr cudaError_t cudaErrorMemoryAllocation = 2;
using cudaStream_t = void*;
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
using cudaMemPool_t = void*;
enum cudaMemAllocationType { cudaMemAllocationTypePinned = 1 };
enum cudaMemLocationType { cudaMemLocationTypeDevice = 1 };
enum cudaMemPoolAttr { cudaMemPoolAttrReleaseThreshold = 4 };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };
struct cudaMemPoolProps {
  cudaMemAllocationType allocType;
  struct {
    cudaMemLocationType type;
    int id;
  } location;
};
struct cudaFuncAttributes {
  int numRegs;
};

const char* cudaGetErrorString(cudaError_t status);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties);
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value);
cudaError_t cudaMallocFromPoolAsync(void** at, std::size_t size, cudaMemPool_t pool, cudaStream_t);
cudaError_t cudaFreeAsync(void* at, cudaStream_t stream);
// To the host only when the stream is waited for, as a copy may be.
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* at, int byte, std::size_t size, cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);

template <typename Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, Kernel*) {
  return cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel, int, std::size_t) {
  *blocks = 2;
  return cudaSuccess;
}

// Runs `run` for every thread of every block.
void cuda_launch(dim3 grid, dim3 block, std::size_t shared, void (*run)(void*), void* argument);

// A kernel takes one structure.
template <typename Params>
cudaError_t cudaLaunchKernel(void (*kernel)(Params), dim3 grid, dim3 block, void** arguments,
                             std::size_t shared, cudaStream_t) {
  struct Call {
    void (*kernel)(Params);
    const Params* params;
  } call{kernel, static_cast<const Params*>(arguments[0])};
  const auto run = [](void* at) {
    static_cast<Call*>(at)->kernel(*static_cast<Call*>(at)->params);
  };
  cuda_launch(grid, block, shared, run, &call);
  return cudaSuccess;
}

// The block's memory of the size that its launch asked for.
void* cuda_shared_memory();

#include "device_functions.h"
