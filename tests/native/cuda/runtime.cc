// The host's side of the emulated CUDA.
#include <cstdlib>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda_runtime.h"

namespace {

// Of device and shared memory that nobody has written.
constexpr int kRubbish = 0xA5;

// A copy to the host that has been asked for: what was there then.
struct Copy {
  void* to;
  std::vector<std::byte> bytes;
};
std::recursive_mutex device;
std::vector<Copy> copies;
std::unique_ptr<std::byte[]> shared_memory;

struct Launch {
  void (*run)(void*);
  void* argument;
};

}  // namespace

const char* cudaGetErrorString(cudaError_t status) {
  return status == cudaSuccess ? "no error" : "out of memory";
}
cudaError_t cudaGetLastError() { return cudaSuccess; }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* number) {
  *number = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 2;
  return cudaSuccess;
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps*) {
  *pool = nullptr;
  return cudaSuccess;
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }

cudaError_t cudaMallocFromPoolAsync(void** at, std::size_t size, cudaMemPool_t, cudaStream_t) {
  *at = std::malloc(size);
  if (*at == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*at, kRubbish, size);
  return cudaSuccess;
}

cudaError_t cudaFreeAsync(void* at, cudaStream_t) {
  std::free(at);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size, cudaMemcpyKind kind,
                            cudaStream_t) {
  const std::lock_guard lock(device);
  const auto* bytes = static_cast<const std::byte*>(from);
  if (kind == cudaMemcpyDeviceToHost) {
    copies.push_back({to, {bytes, bytes + size}});
  } else {
    std::copy(bytes, bytes + size, static_cast<std::byte*>(to));
  }
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* at, int byte, std::size_t size, cudaStream_t) {
  std::memset(at, byte, size);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) {
  const std::lock_guard lock(device);
  for (const Copy& copy : copies) {
    std::copy(copy.bytes.begin(), copy.bytes.end(), static_cast<std::byte*>(copy.to));
  }
  copies.clear();
  return cudaSuccess;
}

void* cuda_shared_memory() { return shared_memory.get(); }

void cuda_launch(dim3 grid, dim3 block, std::size_t shared, void (*run)(void*), void* argument) {
  const std::lock_guard lock(device);
  Launch launch{run, argument};
  cuda_place.threads = block;
  cuda_place.blocks = grid;
  for (unsigned y = 0; y < grid.y; ++y) {
    for (unsigned x = 0; x < grid.x; ++x) {
      cuda_place.block = {x, y, 0};
      shared_memory = std::make_unique_for_overwrite<std::byte[]>(shared);
      std::memset(shared_memory.get(), kRubbish, shared);
      pymerge::emulated::run_block(
          block.x * block.y,
          [](void* at, unsigned) {
            static_cast<Launch*>(at)->run(static_cast<Launch*>(at)->argument);
          },
          &launch);
    }
  }
}
