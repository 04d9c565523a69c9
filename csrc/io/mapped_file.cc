#include "io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "core/error.h"

namespace pymerge {
namespace {

std::int64_t page_size() {
  static const std::int64_t size = sysconf(_SC_PAGESIZE);
  return size;
}

// Where readahead has reached its full window, whatever that is.
constexpr std::int64_t kSmallStart = 16 << 20;

// Page faults of the calling thread so far, or -1 where the system does not count them.
long count_faults() {
#ifdef RUSAGE_THREAD
  rusage usage{};
  if (getrusage(RUSAGE_THREAD, &usage) == 0) return usage.ru_minflt + usage.ru_majflt;
#endif
  return -1;
}

[[noreturn]] void refuse_shorter(const std::string& path, std::int64_t end) {
  throw Error(
      ErrorCode::kFormat,
      "the file has become shorter while it was read; wait until nothing writes to it, then "
      "run the command again",
      path, "", end);
}

}  // namespace

MappedFile::MappedFile(std::string path, bool in_place, std::shared_ptr<ReadAhead> read_ahead)
    : path_(std::move(path)),
      place_(in_place ? Place::kUnknown : Place::kCostly),
      read_ahead_(std::move(read_ahead)) {
  // A pipe would wait for its writer.
  fd_ = open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) throw_errno("cannot open", path_, errno);
  struct stat status{};
  if (fstat(fd_, &status) != 0 || !S_ISREG(status.st_mode)) {
    const int number = S_ISREG(status.st_mode) ? errno : EISDIR;
    close(fd_);
    throw_errno("cannot read", path_, number);
  }
  size_ = status.st_size;
  if (size_ == 0) return;
  void* data = mmap(nullptr, static_cast<std::size_t>(size_), PROT_READ, MAP_SHARED, fd_, 0);
  if (data == MAP_FAILED) {
    const int number = errno;
    close(fd_);
    throw_errno("cannot map", path_, number);
  }
  data_ = static_cast<std::byte*>(data);
  guard_.emplace(data_, size_);
}

MappedFile::~MappedFile() {
  guard_.reset();
  if (data_ != nullptr) munmap(data_, static_cast<std::size_t>(size_));
  close(fd_);
}

bool MappedFile::is_cheap_in_place(std::int64_t offset, std::int64_t length) const {
  Place place = place_.load(std::memory_order_relaxed);
  if (place == Place::kCheap || place == Place::kCostly) return place == Place::kCheap;
  // Three looks, since a few small pages lie among huge ones: readahead starts a file with them.
  // What is not in memory tells nothing yet, nor do small tensors.
  std::int64_t looks[3];
  for (int i = 0; i < 3; ++i) {
    const std::int64_t at = offset + length * (i + 1) / 4;
    looks[i] = (at + kHugePage - 1) / kHugePage * kHugePage;
    if (looks[i] < kSmallStart || looks[i] + kHugePage > std::min(offset + length, size_) ||
        !is_cached(looks[i])) {
      return false;
    }
  }
  if (place != Place::kUnknown || !place_.compare_exchange_strong(place, Place::kProbing)) {
    return false;  // another thread is finding out
  }
  int huge = 0;
  for (const std::int64_t begin : looks) huge += touch_huge_page(begin) ? 1 : 0;
  // Measured over 2.2 GB, 2 threads: in place 0.034 s of CPU a GB with huge pages, 0.11 with small
  // ones; read() into 256 KiB 0.04 and 0.07.
  const bool cheap = huge >= 2;
  place_ = cheap ? Place::kCheap : Place::kCostly;
  for (const std::int64_t begin : looks) done_with(begin, kHugePage);
  return cheap;
}

// A huge page costs one fault, small ones one each 64 KiB: 32.
bool MappedFile::touch_huge_page(std::int64_t begin) const {
  const long before = count_faults();
  touch(begin, begin + kHugePage);
  return before >= 0 && count_faults() - before <= 4;
}

void MappedFile::touch(std::int64_t begin, std::int64_t end) const {
  for (std::int64_t at = begin; at < end; at += page_size()) {
    static_cast<void>(*static_cast<const volatile std::byte*>(data_ + at));
  }
}

void MappedFile::check_whole(std::int64_t offset, std::int64_t length) const {
  touch(offset, offset + length);
  check_whole();
}

void MappedFile::refuse_loss() const {
  struct stat status{};
  if (fstat(fd_, &status) == 0 && status.st_size < size_) refuse_shorter(path_, status.st_size);
  throw_errno("cannot read where it is mapped", path_, EIO);
}

void MappedFile::read(std::int64_t offset, std::int64_t length, std::byte* out) const {
  while (length > 0) {
    const ssize_t got = pread(fd_, out, static_cast<std::size_t>(length), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno("cannot read", path_, errno);
    if (got == 0) refuse_shorter(path_, offset);
    out += got;
    offset += got;
    length -= got;
  }
}

bool MappedFile::is_cached(std::int64_t offset) const {
#ifdef RWF_NOWAIT
  char byte;
  const iovec target{&byte, 1};
  if (preadv2(fd_, &target, 1, offset, RWF_NOWAIT) == 1) return true;
  if (errno != EOPNOTSUPP) return false;
#endif
  // tmpfs, for one, cannot say it so. Not first: of a file that this user may not write, mincore
  // claims that all of it is there.
  unsigned char there = 0;
  std::byte* const page = data_ + offset / page_size() * page_size();
  return mincore(page, 1, &there) == 0 && (there & 1) != 0;
}

void MappedFile::load(std::int64_t offset, std::int64_t length, std::byte* buffer) const {
  // Reading, not asking (MADV_WILLNEED): that brings small pages, at three times the work, which
  // are dear to read in place later; a reader gets pages as large as the readahead window.
  const std::int64_t end = std::min(offset + length, size_);
  for (std::int64_t at = offset; at < end; at += kHugePage) {
    const std::int64_t part = std::min(kHugePage, end - at);
    if (!is_cached(at) || !is_cached(at + part - 1)) read(at, part, buffer);
  }
}

void MappedFile::will_need(std::int64_t offset, std::int64_t length) const {
  if (read_ahead_ && length > 0) read_ahead_->ask(shared_from_this(), offset, length);
}

void MappedFile::done_with(std::int64_t offset, std::int64_t length) const {
  // Outward to whole huge pages: a fault maps neighbors too, and those of a run's edges would stay
  // for good. One that is still being read is simply mapped again from the page cache.
  const std::int64_t begin = offset / kHugePage * kHugePage;
  const std::int64_t end =
      std::min((offset + length + kHugePage - 1) / kHugePage * kHugePage, size_);
  if (begin < end) madvise(data_ + begin, static_cast<std::size_t>(end - begin), MADV_DONTNEED);
}

}  // namespace pymerge
