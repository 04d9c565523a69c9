#include "common/drawn.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace pymerge {
namespace {

// The rows that rules rank; 0 if none does.
std::int64_t ranked_row(const std::vector<Rule>& rules) {
  std::int64_t row = 0;
  for (const Rule& rule : rules) {
    if (rule.kind != Rule::Kind::kRanked) continue;
    if (row != 0 && rule.row != row) {
      throw Error(ErrorCode::kInternal, "mask rules of one tensor rank rows of different lengths");
    }
    row = rule.row;
  }
  return row;
}

// Whether two rules are the same draws.
bool draw_alike(const Rule& one, const Rule& other) {
  return one.kind == other.kind && one.key == other.key && one.keep == other.keep &&
         one.density == other.density && one.epsilon == other.epsilon && one.row == other.row;
}

}  // namespace

Inputs reach_over_segments(Inputs inputs, const std::vector<Rule>& rules) {
  const std::int64_t row = ranked_row(rules);
  if (row != 0) inputs.reach_over_segments(row);
  return inputs;
}

KeptMasks::KeptMasks(std::vector<Mask> masks) : masks_(std::move(masks)) {
  for (const Mask& mask : masks_) {
    data_.push_back(mask ? reinterpret_cast<std::uint8_t*>(mask->data()) : nullptr);
  }
}

Drawn take_drawn(const std::vector<Rule>& rules, std::int64_t count, bool starts,
                 Scratch& scratch) {
  if (ranked_row(rules) == 0) return {};
  auto* const runs = static_cast<RankedRun*>(scratch.take_runs(rules.size() * sizeof(RankedRun)));
  for (std::size_t i = 0; i < rules.size() && starts; ++i) runs[i].begin = runs[i].end = 0;
  return {runs, count};
}

KeptMasks::Mask MaskStore::make(std::int64_t count) {
  const std::int64_t size = (count + kBlock - 1) / kBlock * kBlock / 8;
  if (left_->fetch_sub(size) < size) {
    *left_ += size;
    return nullptr;
  }
  return {new AlignedBuffer(static_cast<std::size_t>(size)),
          [left = left_, size](const AlignedBuffer* buffer) {
            delete buffer;
            *left += size;
          }};
}

KeptMasks MaskStore::reserve(const Inputs& inputs, const std::vector<Rule>& rules) {
  std::vector<KeptMasks::Mask> masks(rules.size());
  for (std::size_t i = 0; i < rules.size(); ++i) {
    if (!is_drawn(rules[i])) continue;
    masks[i] = make(inputs.count());
    if (masks[i] == nullptr) continue;
    entries_.push_back(
        {inputs.tensors()[i].identity(), inputs.base().identity(), rules[i], masks[i]});
  }
  return KeptMasks(std::move(masks));
}

KeptMasks MaskStore::take(const Inputs& inputs, const std::vector<Rule>& rules) {
  std::vector<KeptMasks::Mask> masks(rules.size());
  for (std::size_t i = 0; i < rules.size() && !entries_.empty(); ++i) {
    const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) {
      return entry.tensor == inputs.tensors()[i].identity() &&
             entry.base == inputs.base().identity() && draw_alike(entry.rule, rules[i]);
    });
    if (found == entries_.end()) continue;
    masks[i] = std::move(found->mask);
    entries_.erase(found);
  }
  return KeptMasks(std::move(masks));
}

}  // namespace pymerge
