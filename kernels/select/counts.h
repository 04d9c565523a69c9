// How many keys of whole tensors lie in each of a row of buckets. Contract: run_counts of spec.py.
#pragma once

#include <mutex>
#include <vector>

#include "common/measure.h"
#include "select/select.h"

namespace pymerge {

class KeyCountsMeasure : public Measure {
 public:
  KeyCountsMeasure(Inputs inputs, Compute compute, std::vector<std::uint64_t> lows, int shift,
                   std::int64_t buckets);
  // [n][buckets], row-major.
  const std::vector<std::uint64_t>& counts() const { return counts_; }

 protected:
  void measure(std::int64_t tile, const Inputs::Piece& piece, Scratch& scratch) override;

 private:
  const SelectKernel& kernel_;
  const std::vector<std::uint64_t> lows_;
  const int shift_;
  const std::size_t buckets_;
  std::mutex mutex_;
  std::vector<std::uint64_t> counts_;
};

}  // namespace pymerge
