// What is Python's and threads of the core use.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace pymerge::bindings {

namespace py = pybind11;

// Buffers and objects that workers use. A worker that is done with one cannot let go of it, since
// that takes the GIL, whose holder may be waiting for a lock of the worker's: it is noted here.
class Borrowed {
 public:
  ~Borrowed() { release(); }

  template <typename T>
  std::shared_ptr<const T> hold(T thing) {
    return {new T(std::move(thing)), [this](T* done) {
              const std::lock_guard lock(mutex_);
              done_.push_back(std::shared_ptr<T>(done));
            }};
  }
  // With the GIL.
  void release() {
    std::vector<std::shared_ptr<void>> done;
    {
      const std::lock_guard lock(mutex_);
      done.swap(done_);
    }
  }

 private:
  std::mutex mutex_;
  std::vector<std::shared_ptr<void>> done_;
};

}  // namespace pymerge::bindings
