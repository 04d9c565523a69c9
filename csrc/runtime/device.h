// A GPU as host code uses it: a stream of work, memory in the order of that work, and what failed.
// Includes no CUDA header, so that whoever calls kernels needs none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace pymerge {

// A caller's stream on the current device, for the work of one kernel, which errors name.
class Stream {
 public:
  // `handle`: a cudaStream_t as an integer; 0 is the default stream.
  Stream(std::uintptr_t handle, const char* kernel) : handle_(handle), kernel_(kernel) {}

  void* handle() const { return reinterpret_cast<void*>(handle_); }
  // Throws what a call's status (a cudaError_t) means, if it is not success.
  void check(int status, const char* call) const;
  void synchronize() const;
  // From memory that may change once this returns, if it is not pinned.
  void copy_to_device(void* to, const void* from, std::size_t size) const;
  // There when the stream has been synchronized.
  void copy_to_host(void* to, const void* from, std::size_t size) const;
  void clear(void* at, std::size_t size) const;

 private:
  std::uintptr_t handle_;
  const char* kernel_;
};

// Memory for what a stream does between making and destroying it; nobody waits for either.
class DeviceBuffer {
 public:
  DeviceBuffer(const Stream& stream, std::size_t size);
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept
      : stream_(other.stream_), data_(std::exchange(other.data_, nullptr)) {}
  DeviceBuffer& operator=(DeviceBuffer&&) = delete;

  const Stream& stream() const { return stream_; }
  void* data() const { return data_; }

 private:
  Stream stream_;
  void* data_ = nullptr;  // null if the size is 0
};

// `size` numbers, not yet written.
template <typename T>
class DeviceArray {
 public:
  DeviceArray(const Stream& stream, std::size_t size)
      : buffer_(stream, size * sizeof(T)), size_(size) {}
  DeviceArray(const Stream& stream, const std::vector<T>& values)
      : DeviceArray(stream, values.size()) {
    stream.copy_to_device(buffer_.data(), values.data(), size_ * sizeof(T));
  }

  T* data() const { return static_cast<T*>(buffer_.data()); }
  std::size_t size() const { return size_; }
  void clear() const { buffer_.stream().clear(data(), size_ * sizeof(T)); }
  // Waits for the stream.
  std::vector<T> to_host() const {
    std::vector<T> values(size_);
    buffer_.stream().copy_to_host(values.data(), data(), size_ * sizeof(T));
    buffer_.stream().synchronize();
    return values;
  }

 private:
  DeviceBuffer buffer_;
  std::size_t size_;
};

// What stands against running kernels on the current device, empty if nothing does. Never throws.
std::string why_no_device();

// What compiled the kernels, such as "nvcc 13.0.88".
std::string device_compiler();

}  // namespace pymerge
