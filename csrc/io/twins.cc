#include "io/twins.h"

#include <set>

#include "io/file_copy.h"

namespace pymerge {

std::vector<Segment> share_twins(OutputFile& file, const std::vector<Twin>& twins) {
  std::vector<Segment> shared;
  std::set<const MappedFile*> refused;
  for (auto at = twins.begin(); at != twins.end();) {
    const std::int64_t shift = at->from - at->segment.offset;
    std::int64_t end = at->segment.end();
    auto next = at + 1;
    while (next != twins.end() && next->file == at->file && next->segment.offset == end &&
           next->from - next->segment.offset == shift) {
      end = (next++)->segment.end();
    }
    const std::int64_t begin = (at->segment.offset + kShareUnit - 1) / kShareUnit * kShareUnit;
    end = end / kShareUnit * kShareUnit;
    const MappedFile* const source = at->file.get();
    if (shift % kShareUnit == 0 && begin < end && refused.count(source) == 0) {
      if (file.share(source->descriptor(), begin + shift, begin, end - begin)) {
        shared.push_back({begin, end - begin});
      } else {
        refused.insert(source);
      }
    }
    at = next;
  }
  return shared;
}

std::vector<Segment> find_kept_pages(const std::vector<Segment>& segments,
                                     const std::vector<int>& kept) {
  std::vector<Segment> pages;
  for (std::size_t i = 0; i < kept.size();) {
    const Segment& first = segments[static_cast<std::size_t>(kept[i])];
    std::int64_t end = first.end();
    while (++i < kept.size() && segments[static_cast<std::size_t>(kept[i])].offset == end) {
      end = segments[static_cast<std::size_t>(kept[i])].end();
    }
    const std::int64_t begin = (first.offset + kShareUnit - 1) / kShareUnit * kShareUnit;
    if (end != segments.back().end()) end = end / kShareUnit * kShareUnit;
    if (begin < end) pages.push_back({begin, end - begin});
  }
  return pages;
}

}  // namespace pymerge
