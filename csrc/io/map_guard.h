// What happens when a mapped file loses bytes while they are read: another process cut it, or its
// disk fails. The system raises SIGBUS; a mapping that is guarded gets pages of zeros in place of
// what is gone, so that the thread goes on, and remembers it, so that whoever read can tell.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pymerge {

class MapGuard {
 public:
  // Guards the mapping [begin, begin + length) from now on, for as long as this lives; it must
  // outlive all reading and end before the mapping does. Signals at other addresses go to whoever
  // took them before.
  MapGuard(const std::byte* begin, std::int64_t length);
  ~MapGuard();
  MapGuard(const MapGuard&) = delete;
  MapGuard& operator=(const MapGuard&) = delete;

  // Whether zeros were read instead of bytes that were not there; true of every read that has ended
  // by now.
  bool lost() const;

  // What the handler looks at; in map_guard.cc.
  struct Slot;

 private:
  Slot* slot_;
};

}  // namespace pymerge
