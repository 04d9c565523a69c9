#include "io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "core/error.h"

namespace pymerge {
namespace {

std::int64_t page_size() {
  static const std::int64_t size = sysconf(_SC_PAGESIZE);
  return size;
}

}  // namespace

MappedFile::MappedFile(std::string path) : path_(std::move(path)) {
  const int fd = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw_errno("cannot open", path_, errno);
  struct stat status{};
  if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    const int number = S_ISREG(status.st_mode) ? errno : EISDIR;
    close(fd);
    throw_errno("cannot read", path_, number);
  }
  size_ = status.st_size;
  if (size_ > 0) {
    void* data = mmap(nullptr, static_cast<std::size_t>(size_), PROT_READ, MAP_SHARED, fd, 0);
    const int number = errno;
    close(fd);
    if (data == MAP_FAILED) throw_errno("cannot map", path_, number);
    data_ = static_cast<std::byte*>(data);
  } else {
    close(fd);
  }
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(data_, static_cast<std::size_t>(size_));
}

void MappedFile::will_need(std::int64_t offset, std::int64_t length) const {
  const std::int64_t page = page_size();
  const std::int64_t begin = offset / page * page;
  const std::int64_t end = std::min(offset + length, size_);
  if (begin < end) madvise(data_ + begin, static_cast<std::size_t>(end - begin), MADV_WILLNEED);
}

void MappedFile::done_with(std::int64_t offset, std::int64_t length) const {
  // Outward to whole fault-around windows: touching a page maps its neighbors in the window too,
  // and those of a run's edges would otherwise stay for good (250 MB of a 2.2 GB file in 512 KiB
  // runs). A neighbor that is still being read is simply mapped again from the page cache.
  constexpr std::int64_t kFaultAround = 64 * 1024;
  const std::int64_t begin = offset / kFaultAround * kFaultAround;
  const std::int64_t end =
      std::min((offset + length + kFaultAround - 1) / kFaultAround * kFaultAround, size_);
  if (begin < end) madvise(data_ + begin, static_cast<std::size_t>(end - begin), MADV_DONTNEED);
}

}  // namespace pymerge
