// Memory of Python's that threads of the core read.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <mutex>
#include <vector>

namespace pymerge::bindings {

namespace py = pybind11;

// Python's buffers that workers read. A worker that is done with one cannot let go of it, since
// that takes the GIL, whose holder may be waiting for a lock of the worker's: it is noted here.
class Buffers {
 public:
  ~Buffers() { release(); }

  std::shared_ptr<const py::buffer_info> hold(const py::buffer& buffer) {
    return {new py::buffer_info(buffer.request()), [this](py::buffer_info* info) {
              const std::lock_guard lock(mutex_);
              done_.emplace_back(info);
            }};
  }
  // With the GIL.
  void release() {
    std::vector<std::unique_ptr<py::buffer_info>> done;
    {
      const std::lock_guard lock(mutex_);
      done.swap(done_);
    }
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<py::buffer_info>> done_;
};

}  // namespace pymerge::bindings
