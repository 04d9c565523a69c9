#include "io/map_guard.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <mutex>

namespace pymerge {

// One mapping. The handler reads it without a lock: an odd version, or one that has changed since,
// means that the slot is being given to another mapping, so that it cannot be the one that is read.
struct MapGuard::Slot {
  std::atomic<std::uint32_t> version{0};
  std::atomic<std::uintptr_t> begin{0};
  std::atomic<std::uintptr_t> end{0};  // 0: free
  std::atomic<bool> lost{false};

  void set(std::uintptr_t from, std::uintptr_t to) {
    version += 1;
    begin = from;
    end = to;
    lost = false;
    version += 1;
  }
};

namespace {

// Slots come in groups that are never given back, so that the handler can walk them at any time.
struct Group {
  std::array<MapGuard::Slot, 64> slots;
  std::atomic<Group*> next{nullptr};
};

Group first_group;
std::mutex changing;  // held by those who take and return slots, never by the handler
struct sigaction previous{};
// The thread that is in the previous handler, if any.
std::atomic<pthread_t> passing_on{};

// [at, the mapping's end) of the guarded mapping that holds `address`; nothing where none does.
struct Rest {
  MapGuard::Slot* slot;
  std::uintptr_t at;
  std::uintptr_t end;
};

Rest find(std::uintptr_t address) {
  for (Group* group = &first_group; group != nullptr; group = group->next) {
    for (MapGuard::Slot& slot : group->slots) {
      const std::uint32_t version = slot.version;
      const std::uintptr_t begin = slot.begin;
      const std::uintptr_t end = slot.end;
      if (version % 2 != 0 || slot.version != version) continue;
      if (begin <= address && address < end) return {&slot, address, end};
    }
  }
  return {nullptr, 0, 0};
}

// From the page that is missing to the end: what is cut off is a file's tail, and one signal is
// enough for it. Only system calls and atomics, as a handler may.
bool put_zeros(const Rest& rest) {
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const std::uintptr_t from = rest.at / page * page;
  rest.slot->lost = true;  // before the first zero can be read
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
#if defined(__linux__) && defined(__LP64__)
  // Not by way of a library: sanitizers' mmap is none that a handler may call.
  return syscall(SYS_mmap, from, rest.end - from, PROT_READ, kFlags, -1, 0) != -1;
#else
  return mmap(reinterpret_cast<void*>(from), rest.end - from, PROT_READ, kFlags, -1, 0) !=
         MAP_FAILED;
#endif
}

// Once more, with nobody in the way: on return the thread meets the same fault again.
void die_of(int signal, const siginfo_t* info) {
  struct sigaction plain{};
  plain.sa_handler = SIG_DFL;
  sigaction(signal, &plain, nullptr);
  if (info->si_code <= 0) raise(signal);
}

// Not ours: to the handler that was there before. One that passes it on in turn, to us, as Python's
// faulthandler does if it was enabled in between, has done its work: the process ends.
void pass_on(int signal, siginfo_t* info, void* context) {
  const pthread_t self = pthread_self();
  if (passing_on == self) return die_of(signal, info);
  if ((previous.sa_flags & SA_SIGINFO) != 0) {
    passing_on = self;
    previous.sa_sigaction(signal, info, context);
  } else if (previous.sa_handler == SIG_IGN && info->si_code <= 0) {
    return;  // sent by somebody, and not wanted
  } else if (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN) {
    return die_of(signal, info);
  } else {
    passing_on = self;
    previous.sa_handler(signal);
  }
  passing_on = pthread_t{};
}

void handle(int signal, siginfo_t* info, void* context) {
  const int saved = errno;
  // Only what the processor reports has an address; si_code is not positive where a process sent
  // it.
  const Rest rest =
      info->si_code > 0 ? find(reinterpret_cast<std::uintptr_t>(info->si_addr)) : Rest{};
  if (rest.slot == nullptr || !put_zeros(rest)) pass_on(signal, info, context);
  errno = saved;
}

// In front of whatever handles SIGBUS now, unless that is this already.
void install() {
  struct sigaction current{};
  if (sigaction(SIGBUS, nullptr, &current) != 0) return;
  if ((current.sa_flags & SA_SIGINFO) != 0 && current.sa_sigaction == &handle) return;
  previous = current;
  struct sigaction ours{};
  ours.sa_sigaction = &handle;
  sigemptyset(&ours.sa_mask);
  // SA_NODEFER: a handler that is passed a signal on may end the process by raising it.
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART;
  sigaction(SIGBUS, &ours, nullptr);
}

MapGuard::Slot* take_slot() {
  for (Group* group = &first_group;; group = group->next) {
    for (MapGuard::Slot& slot : group->slots) {
      if (slot.end == 0) return &slot;
    }
    if (group->next == nullptr) group->next = new Group;
  }
}

}  // namespace

MapGuard::MapGuard(const std::byte* begin, std::int64_t length) {
  const std::lock_guard lock(changing);
  install();
  slot_ = take_slot();
  const auto from = reinterpret_cast<std::uintptr_t>(begin);
  slot_->set(from, from + static_cast<std::uintptr_t>(length));
}

MapGuard::~MapGuard() {
  const std::lock_guard lock(changing);
  slot_->set(0, 0);
}

bool MapGuard::lost() const {
  // What was read before stays before: a zero that was read was put there after the mark was set.
  std::atomic_thread_fence(std::memory_order_acquire);
  return slot_->lost;
}

}  // namespace pymerge
