#include "io/safetensors_header.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <memory>
#include <optional>
#include <string_view>
#include <unordered_set>

#include "core/error.h"
#include "io/json_reader.h"

namespace pymerge {
namespace {

constexpr std::int64_t kMaxHeader = 100'000'000;  // the reference implementation's cap

[[noreturn]] void fail(const std::string& path, const std::string& message,
                       const std::string& tensor = {}) {
  throw Error(ErrorCode::kFormat, message, path, tensor);
}

struct File {
  // A pipe would wait for its writer.
  explicit File(const std::string& path)
      : fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (fd < 0) throw_errno("cannot open", path, errno);
  }
  ~File() { close(fd); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd;
};

void read_exactly(const File& file, const std::string& path, char* out, std::int64_t length,
                  std::int64_t offset) {
  while (length > 0) {
    const ssize_t got = pread(file.fd, out, static_cast<std::size_t>(length), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno("cannot read", path, errno);
    if (got == 0) fail(path, "the file shrank while it was read");
    out += got;
    offset += got;
    length -= got;
  }
}

// shape x dtype in bytes; nothing if it overflows or is not a whole number of bytes.
std::optional<std::int64_t> byte_size(const HeaderEntry& entry) {
  std::int64_t bits = dtype_bits(entry.dtype);
  for (const std::int64_t dim : entry.shape) {
    if (__builtin_mul_overflow(bits, dim, &bits)) return std::nullopt;
  }
  if (bits % 8 != 0) return std::nullopt;
  return bits / 8;
}

std::vector<std::int64_t> read_integers(JsonReader& json) {
  std::vector<std::int64_t> values;
  json.expect('[');
  if (json.accept(']')) return values;
  do {
    values.push_back(json.read_integer());
  } while (json.accept(','));
  json.expect(']');
  return values;
}

void read_metadata(JsonReader& json, const std::string& path, SafetensorsHeader& header) {
  std::unordered_set<std::string> seen;
  json.expect('{');
  if (json.accept('}')) return;
  do {
    std::string key = json.read_string();
    if (!seen.insert(key).second) fail(path, "\"" + key + "\" is given twice in __metadata__");
    json.expect(':');
    header.metadata.emplace_back(std::move(key), json.read_string());
  } while (json.accept(','));
  json.expect('}');
}

HeaderEntry read_entry(JsonReader& json, const std::string& path, std::string name) {
  std::optional<DType> dtype;
  std::optional<std::vector<std::int64_t>> shape;
  std::optional<std::vector<std::int64_t>> offsets;
  const auto once = [&](bool given, const std::string& key) {
    if (given) fail(path, "\"" + key + "\" is given twice", name);
  };
  json.expect('{');
  if (!json.accept('}')) {
    do {
      const std::string key = json.read_string();
      json.expect(':');
      if (key == "dtype") {
        once(dtype.has_value(), key);
        const std::string code = json.read_string();
        dtype = find_dtype(code);
        if (!dtype) fail(path, "unknown dtype \"" + code + "\"", name);
      } else if (key == "shape") {
        once(shape.has_value(), key);
        shape = read_integers(json);
      } else if (key == "data_offsets") {
        once(offsets.has_value(), key);
        offsets = read_integers(json);
      } else {
        json.skip_value();
      }
    } while (json.accept(','));
    json.expect('}');
  }
  if (!dtype || !shape || !offsets) fail(path, "dtype, shape or data_offsets is missing", name);
  if (offsets->size() != 2) fail(path, "data_offsets must be two numbers", name);
  return {std::move(name), *dtype, std::move(*shape), (*offsets)[0], (*offsets)[1]};
}

void check_layout(const SafetensorsHeader& header, const std::string& path,
                  std::int64_t data_size) {
  std::int64_t expected = 0;
  for (const HeaderEntry& entry : header.entries) {
    const std::optional<std::int64_t> size = byte_size(entry);
    if (!size) {
      fail(path, "its shape and dtype give no whole number of bytes that a file can have",
           entry.name);
    }
    if (entry.end < entry.begin || *size != entry.end - entry.begin) {
      fail(path,
           "data_offsets span " + std::to_string(entry.end - entry.begin) +
               " bytes, but shape and dtype need " + std::to_string(*size),
           entry.name);
    }
    if (entry.begin != expected) {
      fail(path,
           std::string(entry.begin < expected ? "overlaps the tensor before it"
                                              : "leaves a gap after the tensor before it") +
               " (starts at " + std::to_string(entry.begin) + ", expected " +
               std::to_string(expected) + ")",
           entry.name);
    }
    expected = entry.end;
  }
  if (expected > data_size) {
    fail(path, "the file is truncated: " + std::to_string(expected) +
                   " bytes of data are announced, " + std::to_string(data_size) +
                   " are there; copy or download it again");
  }
  if (expected < data_size) {
    fail(path, std::to_string(data_size - expected) + " bytes after the last tensor");
  }
}

}  // namespace

SafetensorsHeader read_safetensors_header(const std::string& path) {
  const File file(path);
  struct stat status{};
  if (fstat(file.fd, &status) != 0) throw_errno("cannot read", path, errno);
  if (!S_ISREG(status.st_mode)) throw_errno("cannot read", path, EISDIR);
  const std::int64_t file_size = status.st_size;
  if (file_size < 8)
    fail(path, "too short for a safetensors file (" + std::to_string(file_size) + " bytes)");

  unsigned char prefix[8];
  read_exactly(file, path, reinterpret_cast<char*>(prefix), 8, 0);
  std::uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | prefix[i];
  if (length > static_cast<std::uint64_t>(std::min(kMaxHeader, file_size - 8))) {
    fail(path, "header length " + std::to_string(length) +
                   " is past the end of the file or over 100 MB; is it a safetensors file?");
  }
  const auto header_size = static_cast<std::int64_t>(length);
  std::string text(static_cast<std::size_t>(header_size), '\0');
  read_exactly(file, path, text.data(), header_size, 8);
  return parse_safetensors_header(text, file_size - 8 - header_size, path);
}

SafetensorsHeader parse_safetensors_header(std::string_view text, std::int64_t data_size,
                                           const std::string& path) {
  if (!valid_utf8(text)) fail(path, "the header is not valid UTF-8");

  SafetensorsHeader header;
  std::unordered_set<std::string> seen;
  JsonReader json(text, path, 8);
  json.expect('{');
  if (!json.accept('}')) {
    do {
      std::string name = json.read_string();
      if (!seen.insert(name).second) fail(path, "the name appears twice in the header", name);
      json.expect(':');
      if (name == "__metadata__") {
        read_metadata(json, path, header);
      } else {
        header.entries.push_back(read_entry(json, path, std::move(name)));
      }
    } while (json.accept(','));
    json.expect('}');
  }
  json.expect_end();

  // Empty tensors share their neighbour's offset: order by end too.
  std::sort(header.entries.begin(), header.entries.end(), [](const auto& a, const auto& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  check_layout(header, path, data_size);
  const auto data_start = 8 + static_cast<std::int64_t>(text.size());
  for (HeaderEntry& entry : header.entries) {
    entry.begin += data_start;
    entry.end += data_start;
  }
  return header;
}

}  // namespace pymerge
