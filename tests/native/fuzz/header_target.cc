// The safetensors header parser as fuzzers call it, libFuzzer or driver.cc. An input is a line with
// twice the number of data bytes that the file is to have, and then the header's text.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "core/error.h"
#include "io/safetensors_header.h"

namespace pymerge {
namespace {

void demand(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

// What a header that was accepted promises to those who read the file's data.
void check(const SafetensorsHeader& header, std::int64_t start, std::int64_t data_size) {
  std::set<std::string> names;
  std::int64_t at = start;
  for (const HeaderEntry& entry : header.entries) {
    demand(names.insert(entry.name).second, "names are different");
    demand(entry.begin == at && entry.end >= at, "tensors follow each other");
    at = entry.end;
    // Wide enough that it cannot overflow, whatever a shape says.
    unsigned __int128 bits = static_cast<unsigned>(dtype_bits(entry.dtype));
    for (const std::int64_t dim : entry.shape) {
      demand(dim >= 0, "no dimension is negative");
      bits *= static_cast<std::uint64_t>(dim);
      demand(bits <= std::numeric_limits<std::int64_t>::max(), "no shape is too large");
    }
    demand(bits == static_cast<unsigned __int128>(entry.end - entry.begin) * 8,
           "sizes are those of shape and dtype");
  }
  demand(at == start + data_size, "tensors end where the file does");
}

}  // namespace
}  // namespace pymerge

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace pymerge;
  std::size_t at = 0;
  std::uint64_t number = 0;
  while (at < size && data[at] >= '0' && data[at] <= '9') number = number * 10 + (data[at++] - '0');
  const auto data_size = static_cast<std::int64_t>(number >> 1);
  if (at < size && data[at] == '\n') ++at;
  // Memory of its own, to the byte, so that a look past the end is seen.
  const std::size_t length = size - at;
  const std::unique_ptr<char[]> own(new char[length]);
  for (std::size_t i = 0; i < length; ++i) own[i] = static_cast<char>(data[at + i]);
  try {
    const SafetensorsHeader header =
        parse_safetensors_header(std::string_view(own.get(), length), data_size, "fuzzed");
    check(header, 8 + static_cast<std::int64_t>(length), data_size);
  } catch (const Error& error) {
    demand(error.code() == ErrorCode::kFormat, "a refusal is a matter of format");
  }
  return 0;
}
