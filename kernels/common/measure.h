// A measure as a job: tiles of one tensor's inputs, reduced to a few numbers.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <utility>

#include "common/canonical.h"
#include "common/inputs.h"
#include "runtime/job_queue.h"

namespace pymerge {

class Measure : public TileJob {
 public:
  Measure(Inputs inputs, Compute compute) : inputs_(std::move(inputs)), compute_(compute) {}

  std::int64_t tiles() const override { return tile_count(inputs_.count()); }
  void run(std::int64_t tile, Scratch& scratch) override {
    const Range range = tile_range(tile);
    // A canonical tile's length at a time: what was read is let go behind each.
    for (std::int64_t at = 0; at < range.count; at += kTile) {
      inputs_.for_each_piece({range.begin + at, std::min(kTile, range.count - at)}, scratch,
                             [&](const Inputs::Piece& piece) { measure(tile, piece, scratch); });
    }
    finish(tile);
    bytes_read_ += inputs_.bytes(range);
  }

  // Bytes of all passes so far.
  std::int64_t bytes_read() const { return bytes_read_; }

 protected:
  // Adds one piece to what the tile holds; pieces come in order. Then the tile is finished.
  virtual void measure(std::int64_t tile, const Inputs::Piece& piece, Scratch& scratch) = 0;
  virtual void finish(std::int64_t) {}
  virtual Range tile_range(std::int64_t tile) const {
    const std::int64_t begin = tile * kTile;
    return {begin, std::min(kTile, inputs_.count() - begin)};
  }

  const Inputs inputs_;
  const Compute compute_;
  std::atomic<std::int64_t> bytes_read_{0};
};

}  // namespace pymerge
