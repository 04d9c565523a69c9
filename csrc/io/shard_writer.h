// Turns decided tensors into written blocks. An output file is cut into blocks at absolute, aligned
// offsets; a block is filled by one worker once every tensor in it is decided (its filler is
// there), into one of a few recycled buffers, and written by writer threads. Memory is the buffers,
// however large the files; nothing is written twice.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "io/digest.h"
#include "io/mapped_file.h"
#include "io/output_file.h"
#include "io/shard_layout.h"
#include "io/twins.h"
#include "runtime/pool.h"

namespace pymerge {

// Fills bytes [begin, begin + length) of one tensor of the output; returns how many of the stored
// values are not finite.
using Filler = std::function<std::int64_t(std::int64_t begin, std::int64_t length, std::byte* out,
                                          Scratch& scratch)>;

// Bytes that are filled and then digested while they are in the second-level cache; and as many as
// a block has, for fillers that a call costs much.
inline constexpr std::int64_t kPiece = 256 << 10;
inline constexpr std::int64_t kWholeBlocks = INT64_MAX;

struct WriterOptions {
  std::int64_t block = 4 << 20;  // bytes, a multiple of the page size
  int buffers = 8;
  int writers = 2;
  bool want_direct = true;
  bool stop_on_nonfinite = true;
};

class ShardWriter : public WorkSource {
 public:
  struct NonFinite {
    int shard;
    int segment;
    std::int64_t count;
  };
  // A segment all of whose bytes were given to the disk, though not synced.
  struct Written {
    int shard;
    int segment;
    std::string digest;
  };

  explicit ShardWriter(const WriterOptions& options);
  ~ShardWriter() override;

  // The pool that fills blocks; must be set before the first shard is opened, and outlives use.
  void attach(Pool* pool) { pool_ = pool; }

  // Opens `temporary` for a file that will be called `final_path`. The segments are gapless from 0
  // (the header is the first). Those in `kept` (in order, not the header) are in `temporary`
  // already and need no filling. Of `twins` (in order, none of them kept) as much is shared with
  // their files as the file system permits; that is not written any more. Returns the shard's
  // number.
  int open_shard(std::string temporary, std::string final_path, std::vector<Segment> segments,
                 const std::vector<Twin>& twins, const std::vector<int>& kept);
  // Says how a segment is filled: by a function, up to `piece` bytes at a time, or with the bytes
  // at `from` of a file (then returns how many of them are not shared and will be read). Empty
  // segments need neither.
  void set_filler(int shard, int segment, Filler filler, std::int64_t piece = kPiece);
  std::int64_t set_copy(int shard, int segment, std::shared_ptr<const MappedFile> file,
                        std::int64_t from);

  bool run_one(Scratch& scratch) override;

  // Ends the writer threads; blocks not yet written are dropped. The pool must have been stopped.
  // Idempotent.
  void stop();
  // Closes the files, after stop(). Idempotent.
  void close();
  // Has the disk hold what was written to files that are not finished; finished ones are synced.
  void sync();

  int shards_finished() const;
  // What is in the output files already, bytes that were there at the start among them: those
  // shared, those kept.
  std::int64_t bytes_written() const;
  std::int64_t bytes_shared() const;
  std::int64_t bytes_kept() const;
  // True once a non-finite value has ended the filling (stop_on_nonfinite).
  bool halted() const;
  bool direct() const;
  // Tensors in which non-finite values were stored since the last call.
  std::vector<NonFinite> take_nonfinite();
  // Segments written since the last call, but for those that were there in part at the start.
  std::vector<Written> take_written();

 private:
  // How a segment is filled; a copy has a file instead of a function.
  struct Source {
    Filler filler;
    std::shared_ptr<const MappedFile> file;
    std::int64_t from = 0;
    std::int64_t piece = kPiece;
  };
  struct Shard {
    std::shared_ptr<OutputFile> file;
    std::string final_path;
    ShardLayout layout;
    std::vector<Source> sources;                   // per segment
    std::vector<std::unique_ptr<Digest>> digests;  // per segment; none if some of it was there
    std::vector<std::int64_t> unwritten;           // per segment: blocks
    std::vector<int> waiting;                      // per block: segments without a source
    std::int64_t blocks_left;
  };
  struct Block {
    int shard;
    std::int64_t number;
  };
  struct Filled {
    Block block;
    AlignedBuffer* buffer;  // null: the bytes are in a mapped file
    const std::byte* data;
    const Source* source;  // of a mapped file
  };

  void set_source(int shard, int segment, Source source);
  void ask_ahead(const Shard& shard, const Segment& range);
  const std::byte* find_in_place(const Shard& shard, const Segment& range, const Source*& source);
  void fill(const Block& block, const Shard& shard, std::byte* out, Scratch& scratch);
  static std::int64_t fill_piece(const Shard& shard, std::size_t segment, const Segment& piece,
                                 std::byte* out, Scratch& scratch);
  void write_blocks();
  void write_one(const Filled& filled);

  const WriterOptions options_;
  Pool* pool_ = nullptr;
  mutable std::mutex mutex_;
  std::condition_variable filled_ready_;
  std::deque<Shard> shards_;  // a deque: references stay valid
  std::deque<Block> ready_;
  std::deque<Filled> filled_;
  std::vector<AlignedBuffer> buffers_;
  std::vector<AlignedBuffer*> free_;
  std::vector<NonFinite> nonfinite_;
  std::vector<Written> complete_;
  std::int64_t written_ = 0;
  std::int64_t shared_ = 0;
  std::int64_t kept_ = 0;
  int finished_ = 0;
  bool direct_ = false;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace pymerge
