// Sharing a file's extents with another: a copy that costs neither time nor space, on file systems
// that can (XFS, Btrfs).
#pragma once

#include <cstdint>
#include <string>

namespace pymerge {

// What offsets and lengths of shared ranges must be multiples of.
inline constexpr std::int64_t kShareUnit = 4096;

// Makes [to, to + length) of `target` share the extents of [from, from + length) of `source`;
// returns false, with nothing changed, where the file system cannot.
bool share_range(int source, std::int64_t from, int target, std::int64_t to, std::int64_t length);

// Whether files made in `folder` can share extents with the file at `path`. Leaves no trace.
bool can_share(const std::string& folder, const std::string& path);

}  // namespace pymerge
