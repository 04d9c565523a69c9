#include "io/shard_writer.h"

#include <algorithm>
#include <cstring>
#include <utility>

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

int ShardWriter::open_shard(std::string temporary, std::string final_path, std::int64_t size,
                            std::vector<Segment> segments) {
  auto file = std::make_unique<OutputFile>(std::move(temporary), size, options_.want_direct);
  const std::int64_t blocks = (size + options_.block - 1) / options_.block;
  std::vector<int> waiting(static_cast<std::size_t>(blocks), 0);
  for (const Segment& segment : segments) {
    if (segment.nbytes == 0) continue;
    const std::int64_t last = (segment.offset + segment.nbytes - 1) / options_.block;
    for (std::int64_t b = segment.offset / options_.block; b <= last; ++b) {
      ++waiting[static_cast<std::size_t>(b)];
    }
  }
  const std::lock_guard lock(mutex_);
  direct_ = file->direct();
  std::vector<Filler> fillers(segments.size());
  shards_.push_back({std::move(file), std::move(final_path), size, std::move(segments),
                     std::move(fillers), std::move(waiting), blocks});
  return static_cast<int>(shards_.size()) - 1;
}

void ShardWriter::set_filler(int number, int segment, Filler filler) {
  {
    const std::lock_guard lock(mutex_);
    Shard& shard = shards_[static_cast<std::size_t>(number)];
    const Segment& where = shard.segments[static_cast<std::size_t>(segment)];
    // Nothing waits for an empty one: its shard may be finished already.
    if (where.nbytes == 0) return;
    shard.fillers[static_cast<std::size_t>(segment)] = std::move(filler);
    const std::int64_t last = (where.offset + where.nbytes - 1) / options_.block;
    for (std::int64_t b = where.offset / options_.block; b <= last; ++b) {
      if (--shard.waiting[static_cast<std::size_t>(b)] == 0) ready_.push_back({number, b});
    }
  }
  pool_->notify();
}

std::int64_t ShardWriter::block_length(const Shard& shard, std::int64_t number) const {
  return std::min(options_.block, shard.size - number * options_.block);
}

bool ShardWriter::run_one(Scratch& scratch) {
  Block block;
  AlignedBuffer* buffer;
  std::int64_t length;
  {
    const std::lock_guard lock(mutex_);
    if (ready_.empty() || free_.empty() || stopping_) return false;
    block = ready_.front();
    ready_.pop_front();
    buffer = free_.back();
    free_.pop_back();
    length = block_length(shards_[static_cast<std::size_t>(block.shard)], block.number);
  }
  fill(block, buffer->data(), scratch);
  {
    const std::lock_guard lock(mutex_);
    filled_.push_back({block, buffer, length});
  }
  filled_ready_.notify_one();
  return true;
}

void ShardWriter::fill(const Block& block, std::byte* out, Scratch& scratch) {
  Shard* shard;
  {
    const std::lock_guard lock(mutex_);
    shard = &shards_[static_cast<std::size_t>(block.shard)];
  }
  const std::int64_t begin = block.number * options_.block;
  const std::int64_t end = begin + block_length(*shard, block.number);
  // The last segment that starts at or before the block's begin.
  auto at = std::upper_bound(shard->segments.begin(), shard->segments.end(), begin,
                             [](std::int64_t value, const Segment& s) { return value < s.offset; });
  for (at = at == shard->segments.begin() ? at : at - 1;
       at != shard->segments.end() && at->offset < end; ++at) {
    const std::int64_t from = std::max(begin, at->offset);
    const std::int64_t to = std::min(end, at->offset + at->nbytes);
    if (from >= to) continue;
    const auto segment = static_cast<std::size_t>(at - shard->segments.begin());
    const std::int64_t bad =
        shard->fillers[segment](from - at->offset, to - from, out + (from - begin), scratch);
    if (bad > 0) {
      const std::lock_guard lock(mutex_);
      nonfinite_.push_back({block.shard, static_cast<int>(segment), bad});
      if (options_.stop_on_nonfinite) stopping_ = true;
    }
  }
  // Direct writes are whole pages: what pads the file's last one is cut off again, but be tidy.
  const std::int64_t pad =
      (static_cast<std::int64_t>(kPage) - (end - begin) % static_cast<std::int64_t>(kPage)) %
      static_cast<std::int64_t>(kPage);
  std::memset(out + (end - begin), 0, static_cast<std::size_t>(pad));
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
  shard->file->write(filled.buffer->data(), filled.length, filled.block.number * options_.block);
  bool last;
  {
    const std::lock_guard lock(mutex_);
    free_.push_back(filled.buffer);
    written_ += filled.length;
    direct_ = shard->file->direct();
    last = --shard->blocks_left == 0;
  }
  if (!last) return;
  shard->file->finish(shard->final_path);
  const std::lock_guard lock(mutex_);
  shard->file.reset();
  shard->fillers.clear();
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
