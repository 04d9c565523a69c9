// The one exception that crosses the C++ core; the bindings turn it into Python's errors.
#pragma once

#include <cstdint>
#include <exception>
#include <string>
#include <utility>

namespace pymerge {

enum class ErrorCode { kFormat, kShape, kDType, kBackend, kResource, kInternal };

class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string message, std::string path = {}, std::string tensor = {},
        std::int64_t offset = -1)
      : code_(code), path_(std::move(path)), tensor_(std::move(tensor)), offset_(offset) {
    if (!path_.empty()) text_ = path_ + ": ";
    if (!tensor_.empty()) text_ += "tensor \"" + tensor_ + "\": ";
    text_ += message;
    if (offset_ >= 0) text_ += " (at byte " + std::to_string(offset_) + ")";
  }

  ErrorCode code() const { return code_; }
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  ErrorCode code_;
  std::string path_;
  std::string tensor_;
  std::int64_t offset_;
  std::string text_;
};

// A ResourceError (disk or memory) for a failed system call, with errno's text; if the file is not
// there, `missing` says whose fault that is.
[[noreturn]] void throw_errno(const std::string& what, const std::string& path, int number,
                              ErrorCode missing = ErrorCode::kFormat);

}  // namespace pymerge
