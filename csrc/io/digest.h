// A fast digest of a tensor's bytes: 128 bits against damage and mix-ups, not against forgers. The
// bytes may come in any pieces and any order, from any thread.
//
// The bytes are cut into chunks of 4,096, the last one filled up with zeros. Of chunk j, with its
// 512 little-endian words w[i] and fixed keys k[i] = mix((i + 1) * G), lane l < 8 adds up
//   a[l] = sum of low32(w[i] ^ k[i]) * high32(w[i] ^ k[i]) over i = l modulo 8
//        + sum of w[i] over i = l ^ 1 modulo 8,
// and each half s of the digest adds up, over all chunks,
//   mix((2 j + s) * G + sum over l of mix(a[l] ^ k[8 s + l])),
// all modulo 2^64, with splitmix64's constant G and finalizer mix. A half is then
// mix(its sum ^ mix((bytes + s + 1) * G)).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "io/mapped_file.h"

namespace pymerge {

class Digest {
 public:
  static constexpr std::int64_t kChunk = 4096;

  explicit Digest(std::int64_t nbytes) : nbytes_(nbytes) {}

  // Takes bytes [begin, begin + length); each byte must come once.
  void add(std::int64_t begin, std::int64_t length, const std::byte* data);
  // Once all bytes came: 32 hexadecimal digits.
  std::string finish() const;

 private:
  using Halves = std::array<std::uint64_t, 2>;
  // What came of a chunk that lies in two pieces.
  struct Fragment {
    std::array<std::byte, kChunk> bytes{};
    std::int64_t came = 0;
  };

  void add_fragment(std::int64_t begin, std::int64_t length, const std::byte* data);

  const std::int64_t nbytes_;
  std::mutex mutex_;
  Halves sums_{};
  std::map<std::int64_t, Fragment> fragments_;  // by chunk
};

// The digests of ranges (offset, bytes) of a file, read by some threads. Throws Error if the file
// is shorter or cannot be read.
std::vector<std::string> digest_ranges(
    const std::string& path, const std::vector<std::pair<std::int64_t, std::int64_t>>& ranges,
    int threads);

}  // namespace pymerge
