// The safetensors header: 8 bytes length, JSON, then the data. Everything in it is checked before a
// data byte is read.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/dtype.h"

namespace pymerge {

struct HeaderEntry {
  std::string name;
  DType dtype;
  std::vector<std::int64_t> shape;
  std::int64_t begin;  // absolute in the file, bytes
  std::int64_t end;
};

struct SafetensorsHeader {
  std::vector<HeaderEntry> entries;  // in the order of their offsets
  std::vector<std::pair<std::string, std::string>> metadata;
};

// Reads and checks the header of `path`. Throws Error(kFormat) that names the file, the tensor and
// the byte: too short, header too long (100 MB cap), not UTF-8, bad JSON, duplicate name, unknown
// dtype, size other than shape x dtype, overlap, gap, data shorter or longer than the file.
SafetensorsHeader read_safetensors_header(const std::string& path);

// The same of a header that is in memory: `text` is the JSON, `data_size` the bytes of the file
// after it, and `path` is for messages.
SafetensorsHeader parse_safetensors_header(std::string_view text, std::int64_t data_size,
                                           const std::string& path);

}  // namespace pymerge
