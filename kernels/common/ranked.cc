#include "common/ranked.h"

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

}  // namespace

Inputs reach_over_segments(Inputs inputs, const std::vector<Rule>& rules) {
  const std::int64_t row = ranked_row(rules);
  if (row != 0) inputs.reach_over_segments(row);
  return inputs;
}

Ranked take_ranked(const std::vector<Rule>& rules, std::int64_t count, bool starts,
                   Scratch& scratch) {
  if (ranked_row(rules) == 0) return {};
  auto* const runs = static_cast<RankedRun*>(scratch.take_ranked(rules.size() * sizeof(RankedRun)));
  for (std::size_t i = 0; i < rules.size() && starts; ++i) runs[i].begin = runs[i].end = 0;
  return {runs, count};
}

}  // namespace pymerge
