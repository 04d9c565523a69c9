// One output file: sized and reserved under a temporary name, written in blocks at any offsets by
// any thread, past the page cache where the file system lets us, then synced and renamed.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>

namespace pymerge {

class OutputFile {
 public:
  // Opens `path`, creating it with the mode that the umask asks for, and makes it `size` bytes
  // long; what it held stays, what it did not hold are holes.
  OutputFile(std::string path, std::int64_t size, bool want_direct);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  bool direct() const { return direct_; }
  // Shares [to, to + length) with a source file's extents, all multiples of kShareUnit; false where
  // the file system cannot.
  bool share(int source, std::int64_t from, std::int64_t to, std::int64_t length);
  // Has the space for [offset, offset + length) set aside, before anything is written; throws
  // Error(kResource) if it is not there. Where reserving is slow (tmpfs), only looks whether there
  // is room now for what the file does not hold yet.
  void reserve(std::int64_t offset, std::int64_t length);
  // Writes the whole block. `data` and `offset` are multiples of the page size; only the last block
  // of a file may have another length, and `data` must then be readable up to a whole page.
  void write(const std::byte* data, std::int64_t length, std::int64_t offset);
  // Has the disk hold what was written so far; nothing once the file is finished.
  void sync();
  // Cuts the file to its size, syncs it, and gives it its name.
  void finish(const std::string& final_path);

 private:
  std::string path_;
  std::int64_t size_;
  int fd_ = -1;
  std::mutex closing_;  // between sync() and finish()
  std::atomic<bool> direct_{false};
};

// Makes `path` a file of `size` bytes whose space is set aside, as far as the file system can; for
// a later OutputFile.
void reserve_output(const std::string& path, std::int64_t size);

// Syncs a folder, so that a rename in it survives a power cut.
void sync_folder(const std::string& path);

// Whether files in `folder` can be written past the page cache; `why` says what stands against it.
bool probe_direct_io(const std::string& folder, std::string& why);

}  // namespace pymerge
