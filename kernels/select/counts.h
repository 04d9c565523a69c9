// How many keys of whole tensors lie in each of a row of buckets, and samples of them. Contracts:
// run_counts, run_counts_open and run_sample of spec.py.
#pragma once

#include <mutex>
#include <vector>

#include "common/measure.h"
#include "select/select.h"

namespace pymerge {

class KeyCountsMeasure : public Measure {
 public:
  // `open`: one more bucket holds all keys beyond.
  KeyCountsMeasure(Inputs inputs, Compute compute, std::vector<std::uint64_t> lows, int shift,
                   std::int64_t buckets, bool open);
  // [n][buckets + open], row-major.
  const std::vector<std::uint64_t>& counts() const { return counts_; }

 protected:
  void measure(std::int64_t tile, const Inputs::Piece& piece, Scratch& scratch) override;

 private:
  void count_all(std::vector<SelectEntry>& entries, const Inputs::Piece& piece, Scratch& scratch);
  void count_few(std::vector<SelectEntry>& entries, const Inputs::Piece& piece, Scratch& scratch);
  template <typename Key>
  void add_found(const SelectEntry& entry, std::uint64_t low, std::uint64_t* counts) const;
  std::uint64_t width() const { return static_cast<std::uint64_t>(buckets_) << shift_; }

  const SelectKernel& kernel_;
  const std::vector<std::uint64_t> lows_;
  const int shift_;
  const std::size_t buckets_;
  const bool open_;
  std::mutex mutex_;
  std::vector<std::uint64_t> counts_;
};

// A tensor's keys in short runs, one in every so many elements.
class KeySampleMeasure : public Measure {
 public:
  static constexpr std::int64_t kRun = 64;

  // `apart` > kRun.
  KeySampleMeasure(Inputs inputs, Compute compute, std::int64_t apart);
  std::int64_t tiles() const override { return 1; }
  void run(std::int64_t tile, Scratch& scratch) override;
  // [n][keys of one tensor], row-major.
  const std::vector<std::uint64_t>& keys() const { return keys_; }

 protected:
  void measure(std::int64_t, const Inputs::Piece&, Scratch&) override {}

 private:
  template <typename Key>
  void sample(Scratch& scratch);

  const SelectKernel& kernel_;
  const std::int64_t apart_;
  std::vector<std::uint64_t> keys_;
};

}  // namespace pymerge
