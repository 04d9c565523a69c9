// Files by themselves: mapped ones that are cut while they are read, and output written by many
// threads. Built and run by test_runtime.py in the folder that is the first argument; prints what
// went wrong and returns how much. The second argument names a fault that is to be seen.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "io/mapped_file.h"
#include "io/shard_writer.h"
#include "runtime/job_queue.h"

namespace pymerge {
namespace {

int failures = 0;
std::string folder;

void check(bool holds, const char* what) {
  if (holds) return;
  std::printf("failed: %s\n", what);
  ++failures;
}

// A file of `size` bytes, byte i being i % 251 + 1: never zero.
std::string make_file(const std::string& name, std::int64_t size) {
  std::string path = folder + "/" + name;
  std::vector<char> bytes(static_cast<std::size_t>(size));
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i % 251 + 1);
  std::ofstream(path, std::ios::binary).write(bytes.data(), size);
  return path;
}

void cut(const std::string& path, std::int64_t size) {
  if (truncate(path.c_str(), size) != 0) std::abort();
}

std::string read_all(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// What check_whole() says, after reading all of the mapping; `zeros` counts bytes that were not
// there.
std::string complaint(const MappedFile& file, std::int64_t& zeros) {
  zeros = std::count(file.data(), file.data() + file.size(), std::byte{0});
  try {
    file.check_whole();
  } catch (const Error& error) {
    return error.code() == ErrorCode::kFormat ? error.what() : "another kind";
  }
  return "";
}

void test_a_cut_file_reads_as_zeros_and_is_named() {
  constexpr std::int64_t kSize = 1 << 20;
  const std::string path = make_file("cut", kSize);
  const MappedFile file(path);
  const MappedFile whole(make_file("whole", kSize));
  std::int64_t zeros = 0;
  check(complaint(file, zeros).empty() && zeros == 0, "a whole file is no matter");
  cut(path, kSize / 2);
  const std::string said = complaint(file, zeros);
  check(zeros == kSize / 2, "what is gone reads as zeros");
  check(said == path +
                    ": the file has become shorter while it was read; wait until nothing writes to "
                    "it, then run the command again (at byte 524288)",
        "a cut file is named, with its end");
  check(complaint(whole, zeros).empty() && zeros == 0, "another file is no matter");
}

void test_a_failed_call_finds_out_why() {
  const std::string path = make_file("called", 1 << 20);
  const MappedFile file(path);
  cut(path, 4096);
  const int sink = open((folder + "/sink").c_str(), O_WRONLY | O_CREAT, 0600);
  check(write(sink, file.data() + 8192, 4096) < 0 && errno == EFAULT,
        "a call fails, without a signal");
  close(sink);
  std::string said;
  try {
    file.check_whole(8192, 4096);
  } catch (const Error& error) {
    said = error.what();
  }
  check(said.find("become shorter") != std::string::npos, "a failed call finds out why");
}

void test_a_place_is_guarded_for_the_file_that_it_belongs_to() {
  // Places in memory are given out again, and so are the handler's slots.
  for (int round = 0; round < 200; ++round) {
    const std::string path = make_file("again", 64 << 10);
    const MappedFile file(path);
    std::int64_t zeros = 0;
    if (round % 2 == 0) cut(path, 0);
    check(complaint(file, zeros).empty() == (round % 2 != 0), "a place is guarded for its file");
  }
}

void test_threads_may_meet_the_same_end() {
  constexpr int kThreads = 4;
  for (int round = 0; round < 20; ++round) {
    const std::string path = make_file("met", 1 << 20);
    const auto file = std::make_shared<MappedFile>(path);
    std::atomic<int> found{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        // Others come and go meanwhile.
        const MappedFile own(make_file("own" + std::to_string(i), 64 << 10));
        std::int64_t zeros = 0;
        while (complaint(*file, zeros).empty()) std::this_thread::yield();
        ++found;
        check(complaint(own, zeros).empty(), "a file of another thread is no matter");
      });
    }
    cut(path, 4096 * (round + 1));
    for (std::thread& thread : threads) thread.join();
    check(found == kThreads, "threads may meet the same end");
  }
}

// One file of several segments, some of them copied from a mapped file with reading ahead, some
// computed; a measuring queue beside it, on the same pool.
void test_a_shard_is_written_by_many_threads(int threads) {
  constexpr std::int64_t kBlock = 16 << 10;
  const std::string source = make_file("source", 1 << 20);
  const std::string expected = read_all(source);
  WriterOptions options;
  options.block = kBlock;
  options.buffers = 4;
  const auto ahead = std::make_shared<ReadAhead>();
  ShardWriter writer(options);
  JobQueue queue;
  Pool pool(threads, {&writer, &queue});
  writer.attach(&pool);
  queue.attach(&pool);
  const auto file = std::make_shared<MappedFile>(source, true, ahead);

  struct Touch : TileJob {
    std::atomic<int> runs{0};
    std::int64_t tiles() const override { return 50; }
    void run(std::int64_t, Scratch& scratch) override {
      std::memset(scratch.take(4096), 1, 4096);
      ++runs;
    }
  };
  const auto job = std::make_shared<Touch>();
  std::atomic<int> done{0};
  for (int i = 0; i < 20; ++i) queue.submit(std::make_shared<Touch>(), [&done] { ++done; });
  queue.submit(job, [&done] { ++done; });

  constexpr int kShards = 3;
  std::vector<std::string> finals;
  for (int shard = 0; shard < kShards; ++shard) {
    finals.push_back(folder + "/shard" + std::to_string(shard));
    std::vector<Segment> segments;
    std::int64_t at = 0;
    for (int i = 0; at < (1 << 20); ++i) {
      const std::int64_t size = std::min<std::int64_t>(1000 + 37'000 * (i % 3), (1 << 20) - at);
      segments.push_back({at, size});
      at += size;
    }
    writer.open_shard(finals.back() + ".part", finals.back(), segments, {}, {});
    for (int i = 0; i < static_cast<int>(segments.size()); ++i) {
      const std::int64_t offset = segments[static_cast<std::size_t>(i)].offset;
      if (i % 2 == 0) {
        writer.set_copy(shard, i, file, offset);
        continue;
      }
      writer.set_filler(
          shard, i,
          [&expected, offset](std::int64_t begin, std::int64_t length, std::byte* out, Scratch&) {
            std::memcpy(out, expected.data() + offset + begin, static_cast<std::size_t>(length));
            return std::int64_t{0};
          });
    }
  }
  while ((writer.shards_finished() < kShards || done < 21) && !pool.error()) {
    std::this_thread::yield();
  }
  check(!pool.error(), "a shard is written without an error");
  check(job->runs == 50, "measures go on beside it");
  check(writer.bytes_written() == kShards * (1 << 20), "every byte is counted");
  ahead->stop();
  pool.stop();
  writer.stop();
  for (const std::string& path : finals) {
    check(read_all(path) == expected, "a shard is written by many threads");
    unlink(path.c_str());
  }
}

void test_a_source_that_is_cut_ends_the_writing() {
  const std::string source = make_file("short", 1 << 20);
  const auto ahead = std::make_shared<ReadAhead>();
  ShardWriter writer(WriterOptions{});
  Pool pool(2, {&writer});
  writer.attach(&pool);
  const auto file = std::make_shared<MappedFile>(source, true, ahead);
  cut(source, 100);
  writer.open_shard(folder + "/s.part", folder + "/s", {{0, 1 << 20}}, {}, {});
  writer.set_copy(0, 0, file, 0);
  while (!pool.error()) std::this_thread::yield();
  ahead->stop();
  pool.stop();
  writer.stop();
  std::string said;
  try {
    std::rethrow_exception(pool.error());
  } catch (const Error& error) {
    said = error.what();
  }
  check(said.rfind(source + ": the file has become shorter", 0) == 0, "a cut source is named");
  unlink((folder + "/s.part").c_str());
}

// Faults that are to be seen.

// A fault of a mapping that nobody guards.
void read_past_the_end() {
  const std::string path = make_file("foreign", 8192);
  const int fd = open(path.c_str(), O_RDONLY);
  const auto* bytes =
      static_cast<const volatile char*>(mmap(nullptr, 8192, PROT_READ, MAP_SHARED, fd, 0));
  cut(path, 0);
  static_cast<void>(bytes[4096]);
}

void leave(int) { _exit(42); }

// Passes on to whoever it found, as Python's faulthandler does.
struct sigaction found_before{};
void pass_back(int number) {
  if (write(1, "seen\n", 5) != 5) std::abort();
  sigaction(number, &found_before, nullptr);
  raise(number);
}

// Two tiles that meet, in no order that one could rely on, and then add to one number.
void race() {
  struct Careless : TileJob {
    std::atomic<int> here{0};
    std::int64_t sum = 0;
    std::int64_t tiles() const override { return 2; }
    void run(std::int64_t tile, Scratch&) override {
      here.fetch_add(1, std::memory_order_relaxed);
      while (here.load(std::memory_order_relaxed) < 2) std::this_thread::yield();
      sum += tile;
    }
  };
  run_job(std::make_shared<Careless>(), 2);
}

// A filler that writes one byte more than its block has.
void overrun() {
  ShardWriter writer(WriterOptions{.block = 4096, .buffers = 1});
  Pool pool(1, {&writer});
  writer.attach(&pool);
  writer.open_shard(folder + "/o.part", folder + "/o", {{0, 4096}}, {}, {});
  writer.set_filler(0, 0, [](std::int64_t, std::int64_t length, std::byte* out, Scratch&) {
    std::memset(out, 0, static_cast<std::size_t>(length) + 1);
    return std::int64_t{0};
  });
  while (writer.shards_finished() == 0 && !pool.error()) std::this_thread::yield();
}

// A sum of sizes that is not checked.
void overflow() {
  volatile std::int64_t size = INT64_MAX;
  size = size + static_cast<std::int64_t>(folder.size());
}

void with_handler(void (*handler)(int), const std::function<void()>& fault) {
  signal(SIGBUS, handler);
  const MappedFile guarded(make_file("guarded", 8192));
  fault();
}

const std::map<std::string, std::function<void()>> kFaults = {
    {"foreign", [] { with_handler(SIG_DFL, read_past_the_end); }},
    {"handled", [] { with_handler(leave, read_past_the_end); }},
    {"sent", [] { with_handler(SIG_DFL, [] { raise(SIGBUS); }); }},
    {"sent and ignored", [] { with_handler(SIG_IGN, [] { raise(SIGBUS); }); }},
    {"passed back",
     [] {
       const MappedFile first(make_file("first", 8192));
       sigaction(SIGBUS, nullptr, &found_before);
       with_handler(pass_back, read_past_the_end);
     }},
    {"race", race},
    {"overrun", overrun},
    {"overflow", overflow},
};

}  // namespace
}  // namespace pymerge

int main(int count, char** arguments) {
  using namespace pymerge;
  folder = arguments[1];
  if (count > 2) {
    kFaults.at(arguments[2])();
    return 0;
  }
  test_a_cut_file_reads_as_zeros_and_is_named();
  test_a_failed_call_finds_out_why();
  test_a_place_is_guarded_for_the_file_that_it_belongs_to();
  test_threads_may_meet_the_same_end();
  for (const int threads : {1, 4}) test_a_shard_is_written_by_many_threads(threads);
  test_a_source_that_is_cut_ends_the_writing();
  return failures;
}
