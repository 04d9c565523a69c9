// Weights that are stored as codes and scales, decoded while they are read. Contracts: spec.py,
// packed.py. The results are float32.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "dequantize/dequantize.h"
#include "io/tensor_view.h"

namespace pymerge {

// Matrices of 8-bit floats; a scale for each block of `block_rows` x `block_columns`, parts of
// blocks at the ends of rows and columns.
class ScaledDerived : public Derived {
 public:
  struct Shape {
    std::int64_t matrices;
    std::int64_t rows;
    std::int64_t columns;
    std::int64_t block_rows;
    std::int64_t block_columns;
  };
  // Throws if codes and scales do not fit.
  ScaledDerived(TensorView codes, TensorView scales, Shape shape);

  std::int64_t count() const { return codes_.count; }
  void read(Range range, std::byte* out, Scratch& scratch) const override;
  void will_need(Range range) const override;
  void load(std::byte* buffer) const override;

 private:
  const std::vector<float>& scales(Scratch& scratch) const;

  const DequantizeKernel& kernel_;
  const TensorView codes_;
  const TensorView scale_view_;
  const Shape shape_;
  const std::int64_t grid_rows_;
  const std::int64_t grid_columns_;
  const int format_;
  mutable std::once_flag found_;
  mutable std::vector<float> scales_;
};

// Matrices of 4-bit floats in groups of 32 of a row, each with a power of two; the result has their
// rows as columns.
class TurnedDerived : public Derived {
 public:
  // codes: [matrices][rows][groups][16] bytes; scales: [matrices][rows][groups]. Throws if they do
  // not fit. The result is [matrices][32 groups][rows].
  TurnedDerived(TensorView codes, TensorView scales, std::int64_t rows, std::int64_t groups);

  std::int64_t count() const { return 2 * codes_.count; }
  void read(Range range, std::byte* out, Scratch& scratch) const override;
  void will_need(Range range) const override;
  void load(std::byte* buffer) const override;

 private:
  // A matrix in the order of the result: it is read whole, since a column of it lies everywhere in
  // what is stored.
  struct Turned {
    std::once_flag made;
    std::vector<std::uint8_t> codes;   // [32 groups][bytes_of_column_], two codes in each
    std::vector<std::uint8_t> scales;  // [groups][rows]
  };
  std::shared_ptr<const Turned> turn(std::int64_t matrix, Scratch& scratch) const;
  void make(std::int64_t matrix, Turned& turned, Scratch& scratch) const;

  const DequantizeKernel& kernel_;
  const TensorView codes_;
  const TensorView scales_;
  const std::int64_t rows_;
  const std::int64_t groups_;
  const std::int64_t bytes_of_column_;
  mutable std::mutex mutex_;
  // The last ones that were asked for, as many as kKept bytes hold, and two at least.
  static constexpr std::int64_t kKept = 64 << 20;
  mutable std::deque<std::pair<std::int64_t, std::shared_ptr<Turned>>> kept_;
};

// Blocks that hold their scales, one after the other.
class PackedDerived : public Derived {
 public:
  // `blocks`: bytes. Throws if there is no such format, or a block is not whole.
  PackedDerived(TensorView blocks, const std::string& format);

  std::int64_t count() const { return blocks_.count / format_.bytes * format_.elements; }
  void read(Range range, std::byte* out, Scratch& scratch) const override;
  void will_need(Range range) const override;
  void load(std::byte* buffer) const override;

 private:
  const DequantizeKernel& kernel_;
  const TensorView blocks_;
  const int number_;
  const PackedFormat format_;
};

}  // namespace pymerge
