// device.h, on the CUDA runtime.
#include <cuda_runtime.h>

#include <array>
#include <mutex>

#include "core/error.h"
#include "runtime/device.h"

namespace pymerge {
namespace {

// What a pool keeps of the memory that was freed, for the next kernels: the default gives all back
// whenever a stream is waited for, and asking the system again takes longer than most kernels.
constexpr std::uint64_t kKept = std::uint64_t{256} << 20;
constexpr int kMostDevices = 64;

// The current device's, made when it is first needed; ours, since the default pool is everybody's.
cudaMemPool_t pool_of(const Stream& stream) {
  static std::mutex mutex;
  static std::array<cudaMemPool_t, kMostDevices> pools{};
  static std::array<bool, kMostDevices> made{};
  int device = 0;
  stream.check(cudaGetDevice(&device), "cudaGetDevice");
  if (device >= kMostDevices) throw Error(ErrorCode::kBackend, "too many CUDA devices");
  const auto at = static_cast<std::size_t>(device);
  const std::lock_guard lock(mutex);
  if (!made[at]) {
    cudaMemPoolProps properties{};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = device;
    stream.check(cudaMemPoolCreate(&pools[at], &properties), "cudaMemPoolCreate");
    std::uint64_t kept = kKept;
    stream.check(cudaMemPoolSetAttribute(pools[at], cudaMemPoolAttrReleaseThreshold, &kept),
                 "cudaMemPoolSetAttribute");
    made[at] = true;
  }
  return pools[at];
}

cudaStream_t handle_of(const Stream& stream) { return static_cast<cudaStream_t>(stream.handle()); }

__global__ void do_nothing(int) {}

}  // namespace

void Stream::check(int status, const char* call) const {
  if (status == cudaSuccess) return;
  const auto error = static_cast<cudaError_t>(status);
  cudaGetLastError();  // or the next call that succeeds would report it again
  const std::string message = std::string(kernel_) + ": " + call + ": " + cudaGetErrorString(error);
  if (error == cudaErrorMemoryAllocation) {
    throw Error(ErrorCode::kResource,
                message + "; merge fewer or smaller tensors at a time, or use --backend cpu");
  }
  throw Error(ErrorCode::kBackend, message);
}

void Stream::synchronize() const {
  check(cudaStreamSynchronize(handle_of(*this)), "cudaStreamSynchronize");
}

void Stream::copy_to_device(void* to, const void* from, std::size_t size) const {
  if (size == 0) return;
  check(cudaMemcpyAsync(to, from, size, cudaMemcpyHostToDevice, handle_of(*this)),
        "cudaMemcpyAsync");
}

void Stream::copy_to_host(void* to, const void* from, std::size_t size) const {
  if (size == 0) return;
  check(cudaMemcpyAsync(to, from, size, cudaMemcpyDeviceToHost, handle_of(*this)),
        "cudaMemcpyAsync");
}

void Stream::clear(void* at, std::size_t size) const {
  if (size == 0) return;
  check(cudaMemsetAsync(at, 0, size, handle_of(*this)), "cudaMemsetAsync");
}

DeviceBuffer::DeviceBuffer(const Stream& stream, std::size_t size) : stream_(stream) {
  if (size == 0) return;
  stream.check(cudaMallocFromPoolAsync(&data_, size, pool_of(stream), handle_of(stream)),
               "cudaMallocFromPoolAsync");
}

DeviceBuffer::~DeviceBuffer() {
  // What fails here failed before, and was thrown then.
  if (data_ != nullptr) cudaFreeAsync(data_, handle_of(stream_));
}

std::string why_no_device() {
  int devices = 0;
  cudaError_t status = cudaGetDeviceCount(&devices);
  if (status == cudaSuccess && devices == 0) return "there is no CUDA device";
  cudaFuncAttributes attributes{};
  // Loads the kernels: fails for a device that they were not compiled for.
  if (status == cudaSuccess) status = cudaFuncGetAttributes(&attributes, do_nothing);
  if (status == cudaSuccess) return "";
  cudaGetLastError();
  return cudaGetErrorString(status);
}

std::string device_compiler() {
#ifdef __CUDACC_VER_MAJOR__
  return "nvcc " + std::to_string(__CUDACC_VER_MAJOR__) + "." +
         std::to_string(__CUDACC_VER_MINOR__) + "." + std::to_string(__CUDACC_VER_BUILD__);
#else
  return "none: for this machine's processor";
#endif
}

}  // namespace pymerge
