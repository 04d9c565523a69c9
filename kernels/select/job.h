// select over whole tensors: a bracket around the wanted rank from a sample, one exact pass that
// counts above it and gathers inside it, and a choice among what was gathered. Exact whatever the
// sample: a bracket that missed, or holds too much, is narrowed by histogram passes.
#pragma once

#include <memory>
#include <vector>

#include "common/lines.h"
#include "common/measure.h"
#include "select/select.h"

namespace pymerge {

class SelectMeasure : public Measure {
 public:
  static constexpr std::int64_t kGathered = 16 << 20;

  // A cut that is asked for.
  struct Wanted {
    int tensor;          // of the inputs; those of one stand side by side
    std::int64_t count;  // how many of its largest magnitudes, 0..n
    // Not negative: not magnitudes are ordered, but how far all tensors are apart; wanted is this
    // share of the elements at which they are at all. The only cut then.
    double share = -1;
  };

  // `gathered`: bytes of keys that may be held per cut; where a bracket holds more, passes that
  // only count come first. `factors`: of the magnitudes, if there are any.
  SelectMeasure(Inputs inputs, Compute compute, const std::vector<Wanted>& wanted,
                std::int64_t gathered = kGathered, LineNumbers factors = {});
  ~SelectMeasure() override;

  std::int64_t tiles() const override;
  void run(std::int64_t tile, Scratch& scratch) override;
  bool again() override;
  // In the order in which they were asked for.
  const std::vector<Rule::Cut>& cuts() const { return cuts_; }

 protected:
  void measure(std::int64_t tile, const Inputs::Piece& piece, Scratch& scratch) override;

 private:
  template <typename Key>
  class Search;
  class SearchBase;
  std::unique_ptr<SearchBase> search_;
  const double share_;
  const LineNumbers factors_;
  std::vector<Rule::Cut> cuts_;
};

}  // namespace pymerge
