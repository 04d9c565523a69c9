// Output bytes that need not be written, since the disk has them: a source's, whose extents the
// output can share, or the output's own of an earlier attempt.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "io/mapped_file.h"
#include "io/output_file.h"
#include "io/shard_layout.h"

namespace pymerge {

// A segment whose bytes are those at `from` in another file.
struct Twin {
  Segment segment;
  std::shared_ptr<const MappedFile> file;
  std::int64_t from;
};

// Shares the whole pages of twins with their files, neighbors from one file in one go; returns what
// was shared, in order. A file that is refused once is not tried again: its file system cannot, or
// is another one.
std::vector<Segment> share_twins(OutputFile& file, const std::vector<Twin>& twins);

// The whole pages of segments (by number, in order) that are in a file of `segments` already,
// neighbors as one. A page at an edge also has bytes of a segment that is not there.
std::vector<Segment> find_kept_pages(const std::vector<Segment>& segments,
                                     const std::vector<int>& kept);

}  // namespace pymerge
