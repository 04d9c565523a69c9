#include "io/output_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "io/file_copy.h"
#include "runtime/aligned_buffer.h"

// What POSIX does not have, in one place: elsewhere these fall back to plain calls.
#ifndef O_DIRECT
#define O_DIRECT 0
#endif
#ifdef __linux__
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#endif

namespace pymerge {
namespace {

constexpr std::int64_t kBufferedWrite = 1 << 20;  // bytes a call; larger is no faster (measured)

// Whatever fails about an output is the fault of its disk or folder, never of a model.
[[noreturn]] void fail(const std::string& what, const std::string& path, int number) {
  throw_errno(what, path, number, ErrorCode::kResource);
}

// A signal may interrupt any of these calls on some file systems.
template <typename Call>
auto retry(const Call& call) {
  decltype(call()) result;
  do {
    result = call();
  } while (result < 0 && errno == EINTR);
  return result;
}

std::int64_t round_up(std::int64_t size) {
  const auto page = static_cast<std::int64_t>(kPage);
  return (size + page - 1) / page * page;
}

#ifdef __linux__
// Sets space aside; returns the error, 0 where the file system cannot and a write has to find out.
int reserve_space(int fd, std::int64_t offset, std::int64_t length) {
  struct statfs room{};
  if (fstatfs(fd, &room) == 0 && room.f_type == TMPFS_MAGIC) {
    // Reserving in memory is all of the work of writing but the copying (0.2 s a GB, and by one
    // thread): look whether there is room instead. No blocks at all means no limit.
    struct stat held{};
    if (fstat(fd, &held) != 0) return errno;
    const std::int64_t free = static_cast<std::int64_t>(room.f_bavail) * room.f_bsize;
    return room.f_blocks == 0 || length - held.st_blocks * 512 <= free ? 0 : ENOSPC;
  }
  if (retry([&] { return fallocate(fd, 0, offset, round_up(length)); }) == 0) return 0;
  return errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL ? 0 : errno;
}
#endif

}  // namespace

OutputFile::OutputFile(std::string path, std::int64_t size, bool want_direct)
    : path_(std::move(path)), size_(size) {
  constexpr int kFlags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
  if (want_direct && O_DIRECT != 0) {
    fd_ = retry([&] { return open(path_.c_str(), kFlags | O_DIRECT, 0666); });
    direct_ = fd_ >= 0;
  }
  if (fd_ < 0) fd_ = retry([&] { return open(path_.c_str(), kFlags, 0666); });
  if (fd_ < 0) fail("cannot create", path_, errno);
  if (retry([&] { return ftruncate(fd_, size_); }) != 0) {
    const int number = errno;
    close(fd_);
    fail("cannot size", path_, number);
  }
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) close(fd_);
}

bool OutputFile::share(int source, std::int64_t from, std::int64_t to, std::int64_t length) {
  return share_range(source, from, fd_, to, length);
}

void OutputFile::reserve(std::int64_t offset, std::int64_t length) {
#ifdef __linux__
  if (length <= 0) return;
  const int number = reserve_space(fd_, offset, length);
  if (number == 0) return;
  fail("cannot reserve " + std::to_string(length) + " bytes", path_, number);
#else
  static_cast<void>(offset), static_cast<void>(length);
#endif
}

void OutputFile::write(const std::byte* data, std::int64_t length, std::int64_t offset) {
  while (length > 0) {
    const bool direct = direct_;
    const std::int64_t chunk = direct ? round_up(length) : std::min(length, kBufferedWrite);
    const ssize_t put =
        retry([&] { return pwrite(fd_, data, static_cast<std::size_t>(chunk), offset); });
    if (put < 0 && errno == EINVAL && direct) {
      // Opened with O_DIRECT but refused at the write (some FUSE and network file systems).
      direct_ = false;
      if (fcntl(fd_, F_SETFL, 0) != 0) fail("cannot write", path_, errno);
      continue;
    }
    if (put < 0) fail("cannot write", path_, errno);
    if (direct && put % static_cast<std::int64_t>(kPage) != 0) {
      direct_ = false;  // cut short in the middle of a page: the rest goes the plain way
      if (fcntl(fd_, F_SETFL, 0) != 0) fail("cannot write", path_, errno);
    }
    data += put;
    offset += put;
    length -= put;
  }
}

void OutputFile::sync() {
  const std::lock_guard lock(closing_);
  if (fd_ < 0) return;
#ifdef __linux__
  const int result = retry([&] { return fdatasync(fd_); });
#else
  const int result = retry([&] { return fsync(fd_); });
#endif
  if (result != 0) fail("cannot sync", path_, errno);
}

void OutputFile::finish(const std::string& final_path) {
  if (retry([&] { return ftruncate(fd_, size_); }) != 0) fail("cannot size", path_, errno);
  if (retry([&] { return fsync(fd_); }) != 0) fail("cannot sync", path_, errno);
  const std::lock_guard lock(closing_);
  const int fd = std::exchange(fd_, -1);
  if (close(fd) != 0) fail("cannot close", path_, errno);
  if (rename(path_.c_str(), final_path.c_str()) != 0) {
    fail("cannot rename to " + final_path, path_, errno);
  }
}

void reserve_output(const std::string& path, std::int64_t size) {
  OutputFile(path, size, false).reserve(0, size);
}

void sync_folder(const std::string& path) {
  const int fd = retry([&] { return open(path.c_str(), O_RDONLY | O_CLOEXEC); });
  if (fd < 0) fail("cannot open", path, errno);
  const int result = retry([&] { return fsync(fd); });
  const int number = errno;
  close(fd);
  // Some file systems cannot sync a folder and say so; the rename itself has worked.
  if (result != 0 && number != EINVAL && number != ENOTSUP) fail("cannot sync", path, number);
}

bool probe_direct_io(const std::string& folder, std::string& why) {
  const std::string path = folder + "/.pymerge-probe-" + std::to_string(getpid());
  bool direct = false;
  try {
    AlignedBuffer page(kPage);
    std::memset(page.data(), 0, kPage);
    OutputFile file(path, static_cast<std::int64_t>(kPage), true);
    file.write(page.data(), static_cast<std::int64_t>(kPage), 0);
    direct = file.direct();
    why = direct ? "" : "the file system does not take direct writes; buffered writes are used";
  } catch (const Error& error) {
    why = error.what();
  }
  unlink(path.c_str());
  return direct;
}

}  // namespace pymerge
