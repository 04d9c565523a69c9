#include "io/shard_writer.h"

#include <algorithm>
#include <cstring>
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

ShardWriter::~ShardWriter() {
  stop();
  close();
}

void ShardWriter::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  filled_ready_.notify_all();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

void ShardWriter::close() {
  // An open file keeps its space on the disk even when it has been removed.
  const std::lock_guard lock(mutex_);
  for (Shard& shard : shards_) shard.file.reset();
}

void ShardWriter::sync() {
  std::vector<std::shared_ptr<OutputFile>> files;
  {
    const std::lock_guard lock(mutex_);
    for (const Shard& shard : shards_) {
      if (shard.file != nullptr) files.push_back(shard.file);
    }
  }
  for (const auto& file : files) file->sync();
}

namespace {

// How far copies are read ahead: 32 MiB of 4 MiB blocks.
constexpr std::int64_t kBlocksAhead = 8;

std::int64_t count_bytes(const std::vector<Segment>& ranges) {
  std::int64_t sum = 0;
  for (const Segment& range : ranges) sum += range.nbytes;
  return sum;
}

}  // namespace

int ShardWriter::open_shard(std::string temporary, std::string final_path,
                            std::vector<Segment> segments, const std::vector<Twin>& twins,
                            const std::vector<int>& kept) {
  Shard shard{nullptr, std::move(final_path), {std::move(segments), options_.block}, {}, {}, {}, {},
              0};
  ShardLayout& layout = shard.layout;
  shard.file = std::make_shared<OutputFile>(temporary, layout.size(), options_.want_direct);
  std::vector<Segment> there = share_twins(*shard.file, twins);
  const std::int64_t shared = count_bytes(there);
  for (const Segment& pages : find_kept_pages(layout.segments(), kept)) there.push_back(pages);
  std::sort(there.begin(), there.end(),
            [](const Segment& a, const Segment& b) { return a.offset < b.offset; });
  const std::int64_t found = count_bytes(there);
  layout.set_there(std::move(there));
  for (const Segment& part : layout.missing_parts({0, layout.size()})) {
    shard.file->reserve(part.offset, part.nbytes);
  }

  shard.waiting.resize(static_cast<std::size_t>(layout.blocks()), 0);
  shard.blocks_left = layout.blocks();
  for (std::int64_t b = 0; b < layout.blocks(); ++b) {
    if (!layout.missing_parts(layout.block_range(b)).empty()) continue;
    shard.waiting[static_cast<std::size_t>(b)] = 1;  // for good: nothing of it is to be written
    --shard.blocks_left;
  }
  const std::size_t count = layout.segments().size();
  shard.sources.resize(count);
  shard.digests.resize(count);
  shard.unwritten.resize(count, 0);
  std::vector<bool> is_kept(count, false);
  for (const int segment : kept) is_kept[static_cast<std::size_t>(segment)] = true;
  std::unique_lock lock(mutex_);
  const int number = static_cast<int>(shards_.size());
  for (std::size_t i = 0; i < count; ++i) {
    const Segment& segment = layout.segment(i);
    if (count_bytes(layout.missing_parts(segment)) == segment.nbytes && !is_kept[i]) {
      shard.digests[i] = std::make_unique<Digest>(segment.nbytes);
    }
    if (segment.nbytes == 0) {
      complete_.push_back({number, static_cast<int>(i), Digest(0).finish()});
      continue;
    }
    const std::int64_t first = layout.block_of(segment.offset);
    const std::int64_t last = layout.block_of(segment.end() - 1);
    shard.unwritten[i] = last - first + 1;
    for (std::int64_t b = first; b <= last; ++b) ++shard.waiting[static_cast<std::size_t>(b)];
  }
  direct_ = shard.file->direct();
  written_ += found;
  shared_ += shared;
  kept_ += found - shared;
  shards_.push_back(std::move(shard));
  lock.unlock();
  if (kept.empty()) return number;
  // Pages at the edges of what is kept are written again, with what they have of it.
  const auto earlier = std::make_shared<MappedFile>(std::move(temporary), false);
  for (const int segment : kept) {
    const Segment& where =
        shards_[static_cast<std::size_t>(number)].layout.segment(static_cast<std::size_t>(segment));
    set_copy(number, segment, earlier, where.offset);
  }
  return number;
}

void ShardWriter::set_filler(int shard, int segment, Filler filler, std::int64_t piece) {
  set_source(shard, segment, {std::move(filler), nullptr, 0, piece});
}

std::int64_t ShardWriter::set_copy(int number, int segment, std::shared_ptr<const MappedFile> file,
                                   std::int64_t from) {
  std::int64_t copied;
  {
    const std::lock_guard lock(mutex_);
    const ShardLayout& layout = shards_[static_cast<std::size_t>(number)].layout;
    const Segment& where = layout.segment(static_cast<std::size_t>(segment));
    copied = count_bytes(layout.missing_parts(where));
  }
  set_source(number, segment, {nullptr, std::move(file), from, kPiece});
  return copied;
}

void ShardWriter::set_source(int number, int segment, Source source) {
  {
    const std::lock_guard lock(mutex_);
    Shard& shard = shards_[static_cast<std::size_t>(number)];
    const Segment& where = shard.layout.segment(static_cast<std::size_t>(segment));
    // Nothing waits for an empty one, or for what was there at a shard's end: it may be finished.
    if (where.nbytes == 0 || shard.sources.empty()) return;
    shard.sources[static_cast<std::size_t>(segment)] = std::move(source);
    const std::int64_t last = shard.layout.block_of(where.end() - 1);
    for (std::int64_t b = shard.layout.block_of(where.offset); b <= last; ++b) {
      if (--shard.waiting[static_cast<std::size_t>(b)] == 0) ready_.push_back({number, b});
    }
  }
  pool_->notify();
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
  const Segment range = shard->layout.block_range(filled.block.number);
  ask_ahead(*shard, range);
  filled.data = find_in_place(*shard, range, filled.source);
  AlignedBuffer* unused = nullptr;
  if (filled.data == nullptr) {
    fill(filled.block, *shard, filled.buffer->data(), scratch);
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
  shard.layout.for_each_segment(
      {begin, options_.block}, [&](std::size_t segment, std::int64_t from, std::int64_t to) {
        // Unlike those of a block that is filled, its sources may be given just now.
        std::shared_ptr<const MappedFile> file;
        std::int64_t at = 0;
        {
          const std::lock_guard lock(mutex_);
          file = shard.sources[segment].file;
          at = shard.sources[segment].from;
        }
        if (file == nullptr) return;
        file->will_need(at + from - shard.layout.segment(segment).offset, to - from);
      });
}

// Where a block lies in a mapped file, if it can be written straight from there: it is a part of
// one copy, its place in the mapping is as aligned as its place in the output, and touching the
// mapping is cheap.
const std::byte* ShardWriter::find_in_place(const Shard& shard, const Segment& range,
                                            const Source*& source) {
  if (!shard.file->direct() || range.nbytes % kShareUnit != 0) return nullptr;
  const std::byte* data = nullptr;
  shard.layout.for_each_segment(
      range, [&](std::size_t segment, std::int64_t from, std::int64_t to) {
        const Segment& where = shard.layout.segment(segment);
        const Source& candidate = shard.sources[segment];
        const std::int64_t at = candidate.from + range.offset - where.offset;
        if (candidate.file == nullptr || to - from != range.nbytes || at % kShareUnit != 0 ||
            !candidate.file->is_cheap_in_place(candidate.from, where.nbytes)) {
          return;
        }
        source = &candidate;
        data = candidate.file->data() + at;
        if (shard.digests[segment]) {
          shard.digests[segment]->add(range.offset - where.offset, range.nbytes, data);
        }
      });
  return data;
}

void ShardWriter::fill(const Block& block, const Shard& shard, std::byte* out, Scratch& scratch) {
  const Segment range = shard.layout.block_range(block.number);
  for (const Segment& part : shard.layout.missing_parts(range)) {
    shard.layout.for_each_segment(
        part, [&](std::size_t segment, std::int64_t begin, std::int64_t end) {
          std::int64_t size = 0;
          for (std::int64_t at = begin; at < end; at += size) {
            size = std::min(shard.sources[segment].piece, end - at);
            const std::int64_t bad =
                fill_piece(shard, segment, {at, size}, out + (at - range.offset), scratch);
            if (bad == 0) continue;
            const std::lock_guard lock(mutex_);
            nonfinite_.push_back({block.shard, static_cast<int>(segment), bad});
            if (options_.stop_on_nonfinite) stopping_ = true;
          }
        });
  }
  // Direct writes are whole pages: what pads the file's last one is cut off again, but be tidy.
  const std::int64_t pad = (kShareUnit - range.nbytes % kShareUnit) % kShareUnit;
  std::memset(out + range.nbytes, 0, static_cast<std::size_t>(pad));
}

std::int64_t ShardWriter::fill_piece(const Shard& shard, std::size_t segment, const Segment& piece,
                                     std::byte* out, Scratch& scratch) {
  const Source& source = shard.sources[segment];
  const std::int64_t begin = piece.offset - shard.layout.segment(segment).offset;
  std::int64_t bad = 0;
  if (source.file != nullptr) {
    source.file->read(source.from + begin, piece.nbytes, out);
  } else {
    bad = source.filler(begin, piece.nbytes, out, scratch);
  }
  if (shard.digests[segment]) shard.digests[segment]->add(begin, piece.nbytes, out);
  return bad;
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
  const Segment range = shard->layout.block_range(filled.block.number);
  const std::vector<Segment> parts = shard->layout.missing_parts(range);
  const MappedFile* const source = filled.source == nullptr ? nullptr : filled.source->file.get();
  const std::int64_t from = source == nullptr ? 0 : filled.data - source->data();
  try {
    for (const Segment& part : parts) {
      shard->file->write(filled.data + (part.offset - range.offset), part.nbytes, part.offset);
    }
  } catch (const Error&) {
    // Of what is written from a mapping, the input may be what failed ("bad address").
    if (source != nullptr) source->check_whole(from, range.nbytes);
    throw;
  }
  if (source != nullptr) {
    source->check_whole();
    source->done_with(from, range.nbytes);
  }
  bool last;
  {
    const std::lock_guard lock(mutex_);
    if (filled.buffer != nullptr) free_.push_back(filled.buffer);
    written_ += count_bytes(parts);
    direct_ = shard->file->direct();
    shard->layout.for_each_segment(range, [&](std::size_t segment, std::int64_t, std::int64_t) {
      if (--shard->unwritten[segment] > 0 || !shard->digests[segment]) return;
      complete_.push_back(
          {filled.block.shard, static_cast<int>(segment), shard->digests[segment]->finish()});
    });
    last = --shard->blocks_left == 0;
  }
  if (!last) return;
  shard->file->finish(shard->final_path);
  const std::lock_guard lock(mutex_);
  shard->file.reset();
  shard->sources.clear();
  shard->digests.clear();
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

std::int64_t ShardWriter::bytes_kept() const {
  const std::lock_guard lock(mutex_);
  return kept_;
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

std::vector<ShardWriter::Written> ShardWriter::take_written() {
  const std::lock_guard lock(mutex_);
  return std::exchange(complete_, {});
}

}  // namespace pymerge
