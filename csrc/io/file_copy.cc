#include "io/file_copy.h"

#include <fcntl.h>
#include <unistd.h>

#ifdef __linux__
#include <linux/fs.h>
#include <sys/ioctl.h>
#endif

namespace pymerge {

bool share_range(int source, std::int64_t from, int target, std::int64_t to, std::int64_t length) {
#ifdef FICLONERANGE
  // Not copy_file_range: that one shares too, but copies, slowly, where it cannot.
  file_clone_range range{};
  range.src_fd = source;
  range.src_offset = static_cast<std::uint64_t>(from);
  range.src_length = static_cast<std::uint64_t>(length);
  range.dest_offset = static_cast<std::uint64_t>(to);
  return ioctl(target, FICLONERANGE, &range) == 0;
#else
  static_cast<void>(source), static_cast<void>(from), static_cast<void>(target);
  static_cast<void>(to), static_cast<void>(length);
  return false;
#endif
}

bool can_share(const std::string& folder, const std::string& path) {
#if defined(__linux__) && defined(O_TMPFILE)
  const int source = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (source < 0) return false;
  const int target = open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  bool shared = false;
  if (target >= 0) {
    shared = lseek(source, 0, SEEK_END) >= kShareUnit && ftruncate(target, kShareUnit) == 0 &&
             share_range(source, 0, target, 0, kShareUnit);
    close(target);
  }
  close(source);
  return shared;
#else
  static_cast<void>(folder), static_cast<void>(path);
  return false;
#endif
}

}  // namespace pymerge
