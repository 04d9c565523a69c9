// One tensor of an output in the form of GGUF files: fills any range of its bytes.
#pragma once

#include <cstdint>
#include <string>

#include "io/tensor_view.h"
#include "pack/pack.h"
#include "runtime/aligned_buffer.h"

namespace pymerge {

class Packing {
 public:
  // Throws if there is no such format, or elements are no whole blocks of it.
  Packing(TensorView tensor, const std::string& format);

  // Writes bytes [begin, begin + length); behind the last block follow zeros. Returns how many of
  // the elements stored are not finite, for every block in the range.
  std::int64_t fill(std::int64_t begin, std::int64_t length, std::byte* out,
                    Scratch& scratch) const;
  // The flat index of the first element that is stored as such, or -1.
  std::int64_t find_nonfinite(Scratch& scratch) const;
  // Bytes that are read for so many of the result.
  std::int64_t bytes_read(std::int64_t length) const;

 private:
  const float* read(std::int64_t first, std::int64_t blocks, Scratch& scratch) const;

  const TensorView tensor_;
  const int format_;
  const PackedBlock& block_;
  std::int64_t (*const pack_)(const float* in, std::int64_t n, std::byte* out);
  const std::int64_t blocks_;
};

}  // namespace pymerge
