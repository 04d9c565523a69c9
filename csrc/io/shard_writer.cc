#include "io/shard_writer.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "core/error.h"
#include "io/file_copy.h"

namespace pymerge {

ShardWriter::ShardWriter(const WriterOptions& options) : options_(options) {
  for (int i = 0; i < options_.buffers; ++i) {
    buffers_.emplace_back(static_cast<std::size_t>(options_.block));
  }
  for (AlignedBuffer& buffer : buffers_) free_.push_back(&buffer);
  for (int i = 0; i < options_.writers; ++i) threads_.emplace_back([this] { write_blocks(); });
}

ShardWriter::~ShardWriter() { stop(); }

void ShardWriter::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  filled_ready_.notify_all();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
  // An open file keeps its space on the disk even when it has been removed.
  const std::lock_guard lock(mutex_);
  for (Shard& shard : shards_) shard.file.reset();
}

namespace {

// How far copies are read ahead: 32 MiB of 4 MiB blocks.
constexpr std::int64_t kBlocksAhead = 8;

// Shares the whole pages of twins with their files, neighbors from one file in one go; returns what
// was shared, in order. A file that is refused once is not tried again: its file system cannot, or
// is another one.
std::vector<Segment> share_twins(OutputFile& file, const std::vector<Twin>& twins) {
  std::vector<Segment> shared;
  std::set<const MappedFile*> refused;
  for (auto at = twins.begin(); at != twins.end();) {
    const std::int64_t shift = at->from - at->segment.offset;
    std::int64_t end = at->segment.end();
    auto next = at + 1;
    while (next != twins.end() && next->file == at->file && next->segment.offset == end &&
           next->from - next->segment.offset == shift) {
      end = (next++)->segment.end();
    }
    const std::int64_t begin = (at->segment.offset + kShareUnit - 1) / kShareUnit * kShareUnit;
    end = end / kShareUnit * kShareUnit;
    const MappedFile* const source = at->file.get();
    if (shift % kShareUnit == 0 && begin < end && refused.count(source) == 0) {
      if (file.share(source->descriptor(), begin + shift, begin, end - begin)) {
        shared.push_back({begin, end - begin});
      } else {
        refused.insert(source);
      }
    }
    at = next;
  }
  return shared;
}

}  // namespace

int ShardWriter::open_shard(std::string temporary, std::string final_path, std::int64_t size,
                            std::vector<Segment> segments, const std::vector<Twin>& twins) {
  Shard shard;
  shard.file = std::make_unique<OutputFile>(std::move(temporary), size, options_.want_direct);
  shard.final_path = std::move(final_path);
  shard.size = size;
  shard.segments = std::move(segments);
  shard.sources.resize(shard.segments.size());
  shard.shared = share_twins(*shard.file, twins);
  for (const Segment& part : unshared_parts(shard, {0, size})) {
    shard.file->reserve(part.offset, part.nbytes);
  }
  shard.blocks_left = (size + options_.block - 1) / options_.block;
  shard.waiting.resize(static_cast<std::size_t>(shard.blocks_left), 0);
  for (std::size_t b = 0; b < shard.waiting.size(); ++b) {
    if (!unshared_parts(shard, block_range(shard, static_cast<std::int64_t>(b))).empty()) continue;
    shard.waiting[b] = 1;  // for good: nothing of it is to be written
    --shard.blocks_left;
  }
  for (const Segment& segment : shard.segments) {
    if (segment.nbytes == 0) continue;
    const std::int64_t last = (segment.end() - 1) / options_.block;
    for (std::int64_t b = segment.offset / options_.block; b <= last; ++b) {
      ++shard.waiting[static_cast<std::size_t>(b)];
    }
  }
  const std::lock_guard lock(mutex_);
  direct_ = shard.file->direct();
  for (const Segment& part : shard.shared) {
    written_ += part.nbytes;
    shared_ += part.nbytes;
  }
  shards_.push_back(std::move(shard));
  return static_cast<int>(shards_.size()) - 1;
}

void ShardWriter::set_filler(int shard, int segment, Filler filler) {
  set_source(shard, segment, {std::move(filler), nullptr, 0});
}

std::int64_t ShardWriter::set_copy(int number, int segment, std::shared_ptr<const MappedFile> file,
                                   std::int64_t from) {
  std::int64_t copied = 0;
  {
    const std::lock_guard lock(mutex_);
    const Shard& shard = shards_[static_cast<std::size_t>(number)];
    const Segment& where = shard.segments[static_cast<std::size_t>(segment)];
    for (const Segment& part : unshared_parts(shard, where)) copied += part.nbytes;
  }
  set_source(number, segment, {nullptr, std::move(file), from});
  return copied;
}

void ShardWriter::set_source(int number, int segment, Source source) {
  {
    const std::lock_guard lock(mutex_);
    Shard& shard = shards_[static_cast<std::size_t>(number)];
    const Segment& where = shard.segments[static_cast<std::size_t>(segment)];
    // Nothing waits for an empty one, or for what is shared at a shard's end: it may be finished.
    if (where.nbytes == 0 || shard.sources.empty()) return;
    shard.sources[static_cast<std::size_t>(segment)] = std::move(source);
    const std::int64_t last = (where.end() - 1) / options_.block;
    for (std::int64_t b = where.offset / options_.block; b <= last; ++b) {
      if (--shard.waiting[static_cast<std::size_t>(b)] == 0) ready_.push_back({number, b});
    }
  }
  pool_->notify();
}

Segment ShardWriter::block_range(const Shard& shard, std::int64_t number) const {
  const std::int64_t begin = number * options_.block;
  return {begin, std::min(options_.block, shard.size - begin)};
}

std::vector<Segment> ShardWriter::unshared_parts(const Shard& shard, const Segment& range) {
  std::vector<Segment> parts;
  std::int64_t at = range.offset;
  auto next =
      std::upper_bound(shard.shared.begin(), shard.shared.end(), at,
                       [](std::int64_t value, const Segment& s) { return value < s.end(); });
  for (; next != shard.shared.end() && next->offset < range.end(); ++next) {
    if (next->offset > at) parts.push_back({at, next->offset - at});
    at = next->end();
  }
  if (at < range.end()) parts.push_back({at, range.end() - at});
  return parts;
}

bool ShardWriter::run_one(Scratch& scratch) {
  Filled filled{};
  Shard* shard;
  {
    const std::lock_guard lock(mutex_);
    if (ready_.empty() || free_.empty() || stopping_) return false;
    filled.block = ready_.front();
    ready_.pop_front();
    filled.buffer = free_.back();
    free_.pop_back();
    shard = &shards_[static_cast<std::size_t>(filled.block.shard)];
  }
  ask_ahead(*shard, block_range(*shard, filled.block.number));
  filled.data = find_in_place(*shard, block_range(*shard, filled.block.number), filled.source);
  AlignedBuffer* unused = nullptr;
  if (filled.data == nullptr) {
    fill(filled.block, filled.buffer->data(), scratch);
    filled.data = filled.buffer->data();
  } else {
    unused = std::exchange(filled.buffer, nullptr);
  }
  {
    const std::lock_guard lock(mutex_);
    filled_.push_back(filled);
    if (unused != nullptr) free_.push_back(unused);
  }
  filled_ready_.notify_one();
  return true;
}

// A block of a copy asks for what is needed a few blocks later.
void ShardWriter::ask_ahead(const Shard& shard, const Segment& range) {
  const std::int64_t begin = range.offset + kBlocksAhead * options_.block;
  auto at = std::upper_bound(shard.segments.begin(), shard.segments.end(), begin,
                             [](std::int64_t value, const Segment& s) { return value < s.end(); });
  for (; at != shard.segments.end() && at->offset < begin + options_.block; ++at) {
    const Source& source = shard.sources[static_cast<std::size_t>(at - shard.segments.begin())];
    if (source.file == nullptr) continue;
    const std::int64_t from = std::max(begin, at->offset);
    const std::int64_t to = std::min(begin + options_.block, at->end());
    source.file->will_need(source.from + from - at->offset, to - from);
  }
}

// Where a block lies in a mapped file, if it can be written straight from there: it is a part of
// one copy, its place in the mapping is as aligned as its place in the output, and touching the
// mapping is cheap.
const std::byte* ShardWriter::find_in_place(const Shard& shard, const Segment& range,
                                            const Source*& source) {
  if (!shard.file->direct()) return nullptr;
  const auto next =
      std::upper_bound(shard.segments.begin(), shard.segments.end(), range.offset,
                       [](std::int64_t value, const Segment& s) { return value < s.offset; });
  if (next == shard.segments.begin()) return nullptr;
  const auto segment = static_cast<std::size_t>(next - shard.segments.begin()) - 1;
  const Segment& where = shard.segments[segment];
  const Source& candidate = shard.sources[segment];
  const std::int64_t from = candidate.from + range.offset - where.offset;
  if (candidate.file == nullptr || range.end() > where.end() || from % kShareUnit != 0 ||
      range.nbytes % kShareUnit != 0 ||
      !candidate.file->is_cheap_in_place(candidate.from, where.nbytes)) {
    return nullptr;
  }
  source = &candidate;
  return candidate.file->data() + from;
}

void ShardWriter::fill(const Block& block, std::byte* out, Scratch& scratch) {
  Shard* shard;
  {
    const std::lock_guard lock(mutex_);
    shard = &shards_[static_cast<std::size_t>(block.shard)];
  }
  const Segment range = block_range(*shard, block.number);
  for (const Segment& part : unshared_parts(*shard, range)) {
    // From the last segment that starts at or before the part's begin.
    auto at =
        std::upper_bound(shard->segments.begin(), shard->segments.end(), part.offset,
                         [](std::int64_t value, const Segment& s) { return value < s.offset; });
    for (at = at == shard->segments.begin() ? at : at - 1;
         at != shard->segments.end() && at->offset < part.end(); ++at) {
      const std::int64_t from = std::max(part.offset, at->offset);
      const std::int64_t to = std::min(part.end(), at->end());
      if (from >= to) continue;
      const auto segment = static_cast<std::size_t>(at - shard->segments.begin());
      const Source& source = shard->sources[segment];
      std::byte* const target = out + (from - range.offset);
      if (source.file != nullptr) {
        source.file->read(source.from + from - at->offset, to - from, target);
        continue;
      }
      const std::int64_t bad = source.filler(from - at->offset, to - from, target, scratch);
      if (bad > 0) {
        const std::lock_guard lock(mutex_);
        nonfinite_.push_back({block.shard, static_cast<int>(segment), bad});
        if (options_.stop_on_nonfinite) stopping_ = true;
      }
    }
  }
  // Direct writes are whole pages: what pads the file's last one is cut off again, but be tidy.
  const std::int64_t pad = (kShareUnit - range.nbytes % kShareUnit) % kShareUnit;
  std::memset(out + range.nbytes, 0, static_cast<std::size_t>(pad));
}

void ShardWriter::write_blocks() {
  for (;;) {
    Filled filled;
    {
      std::unique_lock lock(mutex_);
      filled_ready_.wait(lock, [this] { return stopping_ || !filled_.empty(); });
      if (stopping_) return;
      filled = filled_.front();
      filled_.pop_front();
    }
    try {
      write_one(filled);
    } catch (...) {
      pool_->fail(std::current_exception());
      return;
    }
    pool_->notify();
  }
}

void ShardWriter::write_one(const Filled& filled) {
  Shard* shard;
  {
    const std::lock_guard lock(mutex_);
    shard = &shards_[static_cast<std::size_t>(filled.block.shard)];
  }
  const Segment range = block_range(*shard, filled.block.number);
  std::int64_t written = 0;
  for (const Segment& part : unshared_parts(*shard, range)) {
    try {
      shard->file->write(filled.data + (part.offset - range.offset), part.nbytes, part.offset);
    } catch (const Error&) {
      // Of what is written from a mapping, the input may be what failed ("bad address").
      if (filled.source != nullptr) {
        const MappedFile& file = *filled.source->file;
        file.check_whole(filled.data - file.data(), range.nbytes);
      }
      throw;
    }
    written += part.nbytes;
  }
  if (filled.source != nullptr) {
    filled.source->file->done_with(filled.data - filled.source->file->data(), range.nbytes);
  }
  bool last;
  {
    const std::lock_guard lock(mutex_);
    if (filled.buffer != nullptr) free_.push_back(filled.buffer);
    written_ += written;
    direct_ = shard->file->direct();
    last = --shard->blocks_left == 0;
  }
  if (!last) return;
  shard->file->finish(shard->final_path);
  const std::lock_guard lock(mutex_);
  shard->file.reset();
  shard->sources.clear();
  ++finished_;
}

int ShardWriter::shards_finished() const {
  const std::lock_guard lock(mutex_);
  return finished_;
}

std::int64_t ShardWriter::bytes_written() const {
  const std::lock_guard lock(mutex_);
  return written_;
}

std::int64_t ShardWriter::bytes_shared() const {
  const std::lock_guard lock(mutex_);
  return shared_;
}

bool ShardWriter::halted() const {
  const std::lock_guard lock(mutex_);
  return stopping_;
}

bool ShardWriter::direct() const {
  const std::lock_guard lock(mutex_);
  return direct_;
}

std::vector<ShardWriter::NonFinite> ShardWriter::take_nonfinite() {
  const std::lock_guard lock(mutex_);
  return std::exchange(nonfinite_, {});
}

}  // namespace pymerge
